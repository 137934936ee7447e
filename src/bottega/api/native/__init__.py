"""The native API, `/api`: recipes in; jobs, events, outputs, the library and the machine out. It tells no path."""

from __future__ import annotations

from bottega.api.native import (
    datasets,
    events,
    forms,
    inputs,
    jobs,
    models,
    outputs,
    people,
    recipes,
    shelves,
    system,
    trainings,
)

# Routes are tried in this order: what is asked for most often comes first.
_SUBJECTS = (jobs, events, outputs, system, inputs, recipes, shelves, models, forms, people, datasets, trainings)
routes = [route for each in _SUBJECTS for route in each.router.routes]
