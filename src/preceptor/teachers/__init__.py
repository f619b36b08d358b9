"""The shelf of teachers: each name is one file.

`TEACHERS` are sources of answers: `open_teacher(card, decoding, dtype, device, trust_remote_code)
-> ask`, where `ask(instructions, seed) -> list[Reply]`.

`SIGNAL_TEACHERS` teach during training: each makes a `preceptor.models.signals.SignalTeacher`.
"""

TEACHERS = {
    "transformers": "preceptor.teachers.transformers:open_teacher",
}

SIGNAL_TEACHERS = {
    "in_process": "preceptor.teachers.in_process:open_in_process",
    "routed": "preceptor.teachers.routed:RoutedTeacher",
    "ensemble": "preceptor.teachers.ensemble:EnsembleTeacher",
    "cached": "preceptor.teachers.cached:open_cached",
}
