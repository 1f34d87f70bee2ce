"""What the command line does: one public function is one verb; files in, files out.

Heavy imports stay inside the functions, so that ``fullyconv --help`` answers at once.
"""

from fullyconv.commands._check import check
from fullyconv.commands._classifiers import convert, heatmap
from fullyconv.commands._evaluate import evaluate
from fullyconv.commands._explain import explain, explain_geometry, explain_matrix, explain_upsampling
from fullyconv.commands._export import export
from fullyconv.commands._machine import demo, doctor
from fullyconv.commands._predict import predict
from fullyconv.commands._report import report
from fullyconv.commands._serve import serve
from fullyconv.commands._train import train

VERBS = (
    check,
    train,
    evaluate,
    report,
    predict,
    heatmap,
    convert,
    export,
    serve,
    explain,
    explain_geometry,
    explain_matrix,
    explain_upsampling,
    doctor,
    demo,
)

__all__ = ["VERBS", *(verb.__name__ for verb in VERBS)]
