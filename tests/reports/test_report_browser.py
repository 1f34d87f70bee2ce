"""The page in a real browser, where one is installed."""

import shutil
import subprocess

import pytest

from fullyconv.reports import render

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


def run(tmp_path, page, *options):
    """Open a page; return the document and what the browser complained about."""
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--allow-file-access-from-files",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
        *options,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@pytest.fixture(scope="module")
def page(findings, tmp_path_factory):
    path = tmp_path_factory.mktemp("browser") / "report.html"
    path.write_text(render(findings), "utf-8")
    return path


@pytest.mark.slow
def test_it_opens_without_complaint_and_without_asking_anyone(page, tmp_path):
    document, complaints = run(tmp_path, page, "--dump-dom")
    assert "<h1>first &lt;i&gt;run</h1>" in document
    assert complaints == []


@pytest.mark.slow
def test_a_page_that_asks_someone_is_noticed(page, tmp_path):
    """The policy of the page stops even what would have slipped in, and the test above would see it."""
    tampered = tmp_path / "tampered.html"
    tampered.write_text(
        page.read_text("utf-8").replace("<main>", '<main><img src="http://example.org/x.png">'), "utf-8"
    )
    _, complaints = run(tmp_path, tampered, "--dump-dom")
    assert "example.org" in "".join(complaints)


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1200])
def test_it_never_scrolls_sideways(page, tmp_path, width):
    frame = page.with_name(f"frame-{width}.html")
    frame.write_text(
        f'<iframe src="{page.name}" style="width:{width}px;height:900px;border:0"></iframe><p></p><script>'
        "onload = () => document.querySelector('p').textContent = "
        "'wide ' + document.querySelector('iframe').contentDocument.documentElement.scrollWidth</script>"
    )
    document, _ = run(tmp_path, frame, "--dump-dom", "--hide-scrollbars")
    assert f"<p>wide {width}</p>" in document


@pytest.mark.slow
@pytest.mark.parametrize("theme", [0, 1], ids=["dark", "light"])
def test_both_themes_are_drawn(page, tmp_path, theme):
    picture = tmp_path / "page.png"
    run(
        tmp_path,
        page,
        f"--blink-settings=preferredColorScheme={theme}",
        "--window-size=800,600",
        f"--screenshot={picture}",
    )
    from fullyconv.images import read_image

    corner = read_image(picture)[5, 5, :3].astype(int)
    assert (corner.max() < 60) if theme == 0 else (corner.min() > 200)
