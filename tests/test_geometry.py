"""Coordinate maps: published crops, laws of composition, and intervals against sets counted one by one."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from fullyconv.errors import GeometryError
from fullyconv.geometry import (
    Affine,
    Everywhere,
    Graph,
    Interpolation,
    Interval,
    Node,
    Pad,
    Pointwise,
    Rule,
    Transposed,
    Window,
    crop_offset,
    hull,
)

laws = settings(max_examples=150, deadline=None)


def chain(*rules: Rule) -> Graph:
    names = [Graph.INPUT, *(f"layer{i}" for i in range(len(rules)))]
    return Graph(
        tuple(
            Node(name, rule, (before,)) for before, name, rule in zip(names, names[1:], rules, strict=False)
        )
    )


# --- published networks -------------------------------------------------------------------------------


def vgg(*heads: Node) -> Graph:
    """VGG16 as in the published FCN prototxts: the first convolution padded by 100, pooling rounding up."""
    nodes, before = [], Graph.INPUT
    for stage, depth in enumerate((2, 2, 3, 3, 3), start=1):
        for i in range(1, depth + 1):
            padding = 100 if before == Graph.INPUT else 1
            nodes.append(Node(f"conv{stage}_{i}", Window(3, 1, padding, padding), (before,)))
            before = f"conv{stage}_{i}"
        nodes.append(Node(f"pool{stage}", Window(2, 2, ceil=True), (before,)))
        before = f"pool{stage}"
    nodes += [Node("fc6", Window(7), (before,)), Node("score_fr", Window(1), ("fc6",))]
    return Graph((*nodes, *heads))


def test_the_crop_of_fcn_32s():
    maps = vgg(Node("upscore", Transposed(64, 32), ("score_fr",))).maps(500)
    assert crop_offset(maps["upscore"], maps[Graph.INPUT]) == 19


def test_the_crops_of_fcn_16s():
    maps = vgg(
        Node("upscore2", Transposed(4, 2), ("score_fr",)),
        Node("upscore16", Transposed(32, 16), ("upscore2",)),
    ).maps(500)
    assert crop_offset(maps["pool4"], maps["upscore2"]) == 5
    assert crop_offset(maps["upscore16"], maps[Graph.INPUT]) == 27


def test_the_crops_of_fcn_8s():
    maps = vgg(
        Node("upscore2", Transposed(4, 2), ("score_fr",)),
        Node("upscore_pool4", Transposed(4, 2), ("upscore2",)),
        Node("upscore8", Transposed(16, 8), ("upscore_pool4",)),
    ).maps(500)
    assert crop_offset(maps["pool4"], maps["upscore2"]) == 5
    assert crop_offset(maps["pool3"], maps["upscore_pool4"]) == 9
    assert crop_offset(maps["upscore8"], maps[Graph.INPUT]) == 31


def test_the_receptive_field_and_stride_of_vgg():
    graph = vgg()
    assert graph.receptive_fields(500)["fc6"] == 404
    assert graph.period() == 32
    assert graph.maps(500)["score_fr"] == Affine(Fraction(32), Fraction(25, 2))


def published_unet() -> Graph:
    """U-Net of arXiv 1505.04597, figure 1: unpadded, 572 → 388."""
    nodes: list[Node] = []

    def add(name: str, rule: Rule, *inputs: str) -> str:
        nodes.append(Node(name, rule, inputs))
        return name

    here, skips = Graph.INPUT, []
    for level in range(5):
        here = add(f"down{level}a", Window(3), here)
        here = add(f"down{level}b", Window(3), here)
        if level < 4:
            skips.append(here)
            here = add(f"pool{level}", Window(2, 2), here)
    for level in (3, 2, 1, 0):
        here = add(f"up{level}", Transposed(2, 2), here)
        partial = Graph(tuple(nodes))
        maps, sizes = partial.maps(572), partial.sizes(572)
        crop = crop_offset(maps[skips[level]], maps[here])
        skip = add(f"crop{level}", Pad(-crop, -(sizes[skips[level]] - sizes[here] - crop)), skips[level])
        here = add(f"join{level}", Pointwise(), skip, here)
        here = add(f"up{level}a", Window(3), here)
        here = add(f"up{level}b", Window(3), here)
    return Graph(tuple(nodes))


def test_the_crops_of_the_published_unet():
    graph = published_unet()
    crops = {node.name: node.rule for node in graph.nodes if node.name.startswith("crop")}
    assert [crops[f"crop{level}"] for level in (3, 2, 1, 0)] == [Pad(-c, -c) for c in (4, 16, 40, 88)]
    assert graph.output_size(572) == 388
    assert graph.maps(572)[graph.output] == Affine(offset=Fraction(92))
    assert graph.needs(Interval(0, 388), 572) == (0, 572)
    assert graph.period() == 16


def test_a_fractional_crop_is_refused():
    with pytest.raises(GeometryError, match="1/2"):
        crop_offset(Affine(), Affine(offset=Fraction(1, 2)))


def test_a_negative_crop_and_unequal_strides_are_refused():
    with pytest.raises(GeometryError, match="-3"):
        crop_offset(Affine(offset=Fraction(3)), Affine())
    with pytest.raises(GeometryError, match="equal strides"):
        crop_offset(Affine(Fraction(2)), Affine())


# --- affine maps --------------------------------------------------------------------------------------

fractions = st.fractions(min_value=-50, max_value=50, max_denominator=16)
strides = st.fractions(min_value=Fraction(1, 32), max_value=32, max_denominator=32)
affines = st.builds(Affine, strides, fractions)


@laws
@given(affines, affines, affines, fractions)
def test_composition_is_applying_one_after_the_other_and_associative(a, b, c, position):
    assert a.after(b)(position) == a(b(position))
    assert a.after(b).after(c) == a.after(b.after(c))


@laws
@given(affines)
def test_a_map_and_its_inverse_cancel(a):
    assert a.after(a.inverse()) == Affine() == a.inverse().after(a)


@laws
@given(affines, st.integers(0, 100))
def test_a_crop_lines_two_branches_up(branch, crop):
    assert crop_offset(branch, Affine(branch.stride, branch(crop))) == crop


# --- rules against counting ---------------------------------------------------------------------------

convolutions = st.builds(
    Window,
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    padding_before=st.integers(-1, 2),
    padding_after=st.integers(-1, 2),
    dilation=st.integers(1, 2),
)


@st.composite
def poolings(draw):
    kernel = draw(st.integers(1, 5))
    padding = draw(st.integers(0, kernel // 2))
    return Window(
        kernel, draw(st.integers(1, 3)), padding, padding, draw(st.integers(1, 2)), draw(st.booleans())
    )


windows = st.one_of(convolutions, poolings())
transposed = st.builds(
    Transposed,
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    padding_before=st.integers(0, 2),
    padding_after=st.integers(-1, 2),
    dilation=st.integers(1, 2),
)
factors = st.sampled_from([Fraction(2), Fraction(3), Fraction(1, 2), Fraction(3, 2), Fraction(2, 3)])
interpolations = st.builds(
    Interpolation,
    kind=st.sampled_from(["nearest", "nearest-exact", "bilinear", "bicubic"]),
    factor=factors,
)
pads = st.builds(
    Pad, st.integers(-2, 3), st.integers(-2, 3), st.sampled_from(["constant", "reflect", "replicate"])
)
any_rule = st.one_of(windows, transposed, interpolations, pads, st.just(Pointwise()))


def window_places(rule: Window, size: int) -> list[list[int]]:
    """The taps of each window, by sliding until nothing is left to slide over."""
    end = size + rule.padding_after
    places, start = [], -rule.padding_before
    while True:
        last = start + rule.extent - 1
        # Rounding up, it may hang over the end by less than a step, but must start before the padding there.
        fits = start < size and last - end < rule.stride - 1 if rule.ceil else last < end
        if not fits:
            return places
        places.append(list(range(start, last + 1, rule.dilation)))
        start += rule.stride


def reads_one_by_one(rule: Rule, size: int) -> list[set[int]]:
    """What each output reads, from the definition of the operation, for an input of ``size``."""
    inside = range(size)
    if isinstance(rule, Window):
        return [{t for t in taps if t in inside} for taps in window_places(rule, size)]
    if isinstance(rule, Transposed):
        spread: dict[int, set[int]] = {}
        for i in inside:
            for tap in range(rule.kernel):
                spread.setdefault(i * rule.stride + rule.dilation * tap - rule.padding_before, set()).add(i)
        extent = (size - 1) * rule.stride + rule.dilation * (rule.kernel - 1) + 1
        outputs = extent - rule.padding_before - rule.padding_after
        return [spread.get(o, set()) for o in range(outputs)]
    if isinstance(rule, Interpolation):
        made = floor(size * rule.factor)
        if rule.kind == "nearest":
            return [{floor(o / rule.factor)} for o in range(made)]
        if rule.kind == "nearest-exact":
            return [{floor((o + Fraction(1, 2)) / rule.factor)} for o in range(made)]
        reach = 1 if rule.kind == "bilinear" else 2
        found = []
        for o in range(made):
            place = (o + Fraction(1, 2)) / rule.factor - Fraction(1, 2)
            if rule.align_corners:
                place = Fraction(o * (size - 1), made - 1) if made > 1 else Fraction(0)
            near = range(floor(place) - 3, floor(place) + 5)
            found.append({min(max(i, 0), size - 1) for i in near if abs(i - place) < reach})
        return found
    if isinstance(rule, Pad):
        found = []
        for o in range(-rule.before, size + rule.after):
            if o in inside:
                found.append({o})
            elif rule.mode == "constant":
                found.append(set())
            elif rule.mode == "replicate":
                found.append({min(max(o, 0), size - 1)})
            else:
                found.append({-o if o < 0 else 2 * (size - 1) - o})
        return found
    return [{i} for i in inside]


def through(rules: list[Rule], size: int) -> list[set[int]]:
    found = [{i} for i in range(size)]
    for rule in rules:
        found = [set().union(*(found[i] for i in reads)) for reads in reads_one_by_one(rule, len(found))]
    return found


def interval_of(found: set[int]) -> Interval:
    return Interval(min(found), max(found) + 1) if found else Interval(0, 0)


@pytest.mark.parametrize(
    "rules",
    [convolutions, poolings(), transposed, interpolations, pads],
    ids=["convolution", "pooling", "transposed convolution", "interpolation", "padding"],
)
@laws
@given(data=st.data(), size=st.integers(4, 24))
def test_a_rule_counts_its_outputs(rules, data, size):
    rule = data.draw(rules)
    assume(rule.output_size(size) >= 1)
    assert rule.output_size(size) == len(reads_one_by_one(rule, size))


@laws
@given(st.lists(any_rule, min_size=1, max_size=4), st.integers(5, 30), st.data())
def test_an_interval_holds_all_that_is_read(rules, size, data):
    graph = chain(*rules)
    try:
        made = graph.output_size(size)
    except GeometryError:
        assume(False)
    # Reflection needs its mirror image to exist.
    sizes = list(graph.sizes(size).values())
    assume(all(n > 3 for n in sizes))
    start = data.draw(st.integers(0, made - 1))
    stop = data.draw(st.integers(start + 1, made))
    found = through(rules, size)
    needed = graph.needs(Interval(start, stop), size)
    assert set().union(*found[start:stop]) <= set(range(*needed))


def is_gapless(rule: Rule) -> bool:
    """Whether what is read has no holes."""
    if isinstance(rule, Window | Transposed):
        return rule.dilation == 1 and rule.kernel >= rule.stride
    if isinstance(rule, Interpolation):
        return rule.kind != "bicubic" and rule.factor >= 1
    return True


@laws
@given(st.lists(any_rule.filter(is_gapless), min_size=1, max_size=4), st.integers(8, 30), st.data())
def test_an_interval_is_no_larger_than_what_is_read(rules, size, data):
    graph = chain(*rules)
    try:
        made = graph.output_size(size)
    except GeometryError:
        assume(False)
    assume(all(n > 3 for n in graph.sizes(size).values()))
    start = data.draw(st.integers(0, made - 1))
    stop = data.draw(st.integers(start + 1, made))
    found = interval_of(set().union(*through(rules, size)[start:stop]))
    needed = graph.needs(Interval(start, stop), size)
    assert (needed if needed.size else Interval(0, 0)) == found


@laws
@given(st.lists(st.one_of(windows, transposed, interpolations), min_size=1, max_size=3))
def test_moving_by_the_period_moves_what_is_read(rules):
    graph = chain(*rules)
    size = 400
    period, step = graph.period(), graph.steps()[graph.output]
    moved = period / step
    assert moved.denominator == 1
    here, there = (graph.reach(Interval(o, o + 1), size) for o in (7, 7 + int(moved)))
    assert there[Graph.INPUT] == here[Graph.INPUT].shifted(period)


@laws
@given(st.lists(st.one_of(windows, transposed, interpolations).filter(is_gapless), min_size=1, max_size=3))
@example([Window(2, 2), Interpolation("nearest", Fraction(2)), Window(2, 3)])
def test_the_receptive_field_is_the_most_any_output_reads(rules):
    graph = chain(*rules)
    size = 160
    middle = [interval_of(reads).size for reads in through(rules, size)]
    margin = len(middle) // 4
    assert graph.receptive_fields(size)[graph.output] == max(middle[margin:-margin])


@laws
@given(st.one_of(convolutions, transposed, factors.map(lambda f: Interpolation("bilinear", f))))
def test_positions_lie_over_the_middle_of_what_they_read(rule):
    affine = rule.affine(60)
    period = int(chain(rule).period() / affine.stride)
    centres = []
    for output in range(30, 30 + period):
        read = rule.reads(Interval(output, output + 1), 60)
        centres.append(Fraction(read.start + read.stop - 1, 2) - affine(output))
    if isinstance(rule, Transposed) and rule.dilation > 1:
        return  # with gaps the hull is not centred
    assert abs(sum(centres) / len(centres)) <= Fraction(1, 2)
    if isinstance(rule, Window):
        assert set(centres) == {0}


@pytest.mark.parametrize("kind", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("factor", [Fraction(2), Fraction(3), Fraction(1, 2), Fraction(1, 3), Fraction(5, 3)])
def test_nearest_lies_over_the_mean_of_what_it_reads(kind, factor):
    rule = Interpolation(kind, factor)
    outputs = range(factor.numerator * 6)
    read = [rule.reads(Interval(o, o + 1), 600).start for o in outputs]
    placed = [rule.affine(600)(o) for o in outputs]
    assert sum(read) == sum(placed)


def test_aligned_corners_place_the_last_output_over_the_last_input():
    rule = Interpolation("bilinear", Fraction(2), align_corners=True)
    affine = rule.affine(7)
    assert affine(0) == 0
    assert affine(13) == 6
    graph = chain(rule)
    assert [graph.needs(Interval(o, o + 1), 7) for o in range(14)] == [
        interval_of(reads) for reads in reads_one_by_one(rule, 7)
    ]


# --- graphs -------------------------------------------------------------------------------------------


def test_branches_read_the_hull_of_what_each_reads():
    graph = Graph(
        (
            Node("wide", Window(9, 1, 4, 4), (Graph.INPUT,)),
            Node("left", Pad(7, -7), (Graph.INPUT,)),
            Node("sum", Pointwise(), ("wide", "left", Graph.INPUT)),
        )
    )
    assert graph.needs(Interval(20, 21), 50) == (13, 25)
    assert graph.receptive_fields(50)["sum"] == 12


def test_what_depends_on_everything_reads_everything():
    squeeze = Graph(
        (
            Node("pool", Everywhere(1), (Graph.INPUT,)),
            Node("conv", Window(3, 1, 1, 1), (Graph.INPUT,)),
            Node("scale", Pointwise(), ("conv", "pool")),
        )
    )
    assert squeeze.needs(Interval(5, 6), 40) == (0, 40)
    assert squeeze.sizes(40) == {Graph.INPUT: 40, "pool": 1, "conv": 40, "scale": 40}
    assert squeeze.receptive_fields(40) == {Graph.INPUT: 1, "pool": None, "conv": 3, "scale": 3}
    assert squeeze.maps(40)["scale"] == Affine()
    norm = chain(Window(3), Everywhere())
    assert norm.needs(Interval(0, 1), 9) == (0, 9)
    assert norm.receptive_fields(9)[norm.output] == 3


def test_outputs_of_padding_alone_read_nothing():
    assert chain(Pad(5, 0), Window(3)).needs(Interval(0, 2), 10).size == 0


def test_an_empty_graph_is_the_identity():
    graph = Graph(())
    assert graph.output == Graph.INPUT
    assert graph.needs(Interval(2, 5), 9) == (2, 5)
    assert graph.output_size(9) == 9


def test_branches_of_unequal_size_are_refused_by_name():
    graph = Graph(
        (Node("half", Window(2, 2), (Graph.INPUT,)), Node("sum", Pointwise(), ("half", Graph.INPUT)))
    )
    with pytest.raises(GeometryError, match="'sum'"):
        graph.sizes(10)


def test_an_input_too_small_is_refused_by_name():
    with pytest.raises(GeometryError, match="'layer1'"):
        chain(Window(3), Window(7)).sizes(8)


@pytest.mark.parametrize(
    "nodes",
    [
        (Node("a", Pointwise(), ("b",)),),
        (Node("a", Pointwise(), (Graph.INPUT,)), Node("a", Pointwise(), (Graph.INPUT,))),
        (Node("a", Pointwise(), ()),),
    ],
    ids=["unknown input", "name twice", "no input"],
)
def test_a_graph_out_of_order_is_refused(nodes):
    with pytest.raises(GeometryError, match="'a'"):
        Graph(nodes)


def test_intervals():
    assert hull([Interval(3, 5), Interval(9, 9), Interval(0, 1)]) == (0, 5)
    assert hull([]).size == 0
    assert Interval(-3, 12).clipped(10) == (0, 10)
    assert Interval(4, 2).size == 0
    assert Interval(1, 2).shifted(3) == (4, 5)
