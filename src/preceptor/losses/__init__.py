"""The shelf of losses: each name is one file and one pure function of tensors."""

LOSSES = {
    "attention": "preceptor.losses.attention:attention",
    "forward_kl": "preceptor.losses.forward_kl:forward_kl",
    "hidden_cosine": "preceptor.losses.hidden_cosine:hidden_cosine",
    "hidden_mse": "preceptor.losses.hidden_mse:hidden_mse",
    "jsd": "preceptor.losses.jsd:jsd",
    "reverse_kl": "preceptor.losses.reverse_kl:reverse_kl",
    "skew_forward_kl": "preceptor.losses.skew_forward_kl:skew_forward_kl",
    "skew_reverse_kl": "preceptor.losses.skew_reverse_kl:skew_reverse_kl",
}
