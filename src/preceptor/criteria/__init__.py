"""The shelf of criteria: each name is one file and one function of the per-answer table."""

CRITERIA = {
    "car": "preceptor.criteria.car:car",
    "ifd": "preceptor.criteria.ifd:ifd",
    "length": "preceptor.criteria.length:length",
    "mean_reward": "preceptor.criteria.mean_reward:mean_reward",
    "perplexity": "preceptor.criteria.perplexity:perplexity",
}
