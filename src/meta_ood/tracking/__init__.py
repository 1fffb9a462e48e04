"""MLflow, and the only part of the package that imports it.

A stage never waits for MLflow. It says what it has to say in a *journal*, a small folder below
``.meta_ood/runs``; one *writer* process for the whole repository, started by whoever finds none,
has mlflow imported once, follows all journals and writes them to the store while the stages go on.
So a stage pays a hundredth of a second instead of four seconds, curves are live, a stage that is
killed ends as FAILED (its journal has no end and its lock is free), and nothing is lost when the
store cannot be reached: the journal stays until ``meta-ood sync``.

``META_OOD_TRACKING=off`` switches tracking off, ``wait`` lets every stage wait until its run is
written.
"""

from meta_ood.tracking.recording import Run, TrackingError, run

__all__ = ["Run", "TrackingError", "run"]
