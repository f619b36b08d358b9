"""The shelf of teacher sources: each name is one file that opens a source of answers.

`open_teacher(card, decoding, dtype, device, trust_remote_code) -> ask`, where
`ask(instructions, seed) -> list[Reply]`.
"""

TEACHERS = {
    "transformers": "preceptor.teachers.transformers:open_teacher",
}
