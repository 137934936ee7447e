"""What a home holds that is somebody's: names are all that tells whose it is."""

from __future__ import annotations

from bottega.gallery import Gallery
from bottega.jobs.queue import has_jobs
from bottega.settings import Settings
from bottega.training.datasets import Datasets


def owns_anything(settings: Settings, name: str) -> bool:
    """Whether jobs, outputs, pictures that were sent or datasets belong to this name; a server may run meanwhile.

    Raises QueueError and GalleryError for files that can't be read.
    """
    queue = settings.home / "queue.sqlite"
    if queue.exists() and has_jobs(queue, name):
        return True
    if settings.gallery.exists():
        with Gallery(settings.gallery, settings.outputs) as gallery:
            if gallery.owns(name):
                return True
    return any(dataset.owner == name for dataset in Datasets(settings.datasets).all())
