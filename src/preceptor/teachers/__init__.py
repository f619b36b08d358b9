"""The shelf of teachers: each name is one file.

`TEACHERS` are sources of answers: `open_teacher(setting, runtime) -> TeacherSource` (see
`preceptor.core.types`). Opening reads and checks what costs nothing; weights are loaded, and
servers called, when the source is asked.

`SIGNAL_TEACHERS` teach during training: each makes a `preceptor.models.signals.SignalTeacher`.
"""

TEACHERS = {
    "transformers": "preceptor.teachers.transformers:open_teacher",
    "vllm": "preceptor.teachers.vllm:open_teacher",
    "openai": "preceptor.teachers.openai:open_teacher",
}

SIGNAL_TEACHERS = {
    "in_process": "preceptor.teachers.in_process:open_in_process",
    "routed": "preceptor.teachers.routed:RoutedTeacher",
    "ensemble": "preceptor.teachers.ensemble:EnsembleTeacher",
    "cached": "preceptor.teachers.cached:open_cached",
}
