"""The shelf of criteria: each name is one file and one function of the per-answer table."""

CRITERIA = {
    "aslec_casl": "preceptor.criteria.aslec_casl:aslec_casl",
    "aslec_drop": "preceptor.criteria.aslec_drop:aslec_drop",
    "car": "preceptor.criteria.car:car",
    "cost": "preceptor.criteria.cost:cost",
    "family_prior": "preceptor.criteria.family_prior:family_prior",
    "grace": "preceptor.criteria.grace:grace",
    "grape": "preceptor.criteria.grape:grape",
    "ic_ifd": "preceptor.criteria.ic_ifd:ic_ifd",
    "ifd": "preceptor.criteria.ifd:ifd",
    "lark": "preceptor.criteria.lark:lark",
    "length": "preceptor.criteria.length:length",
    "local_naturalness": "preceptor.criteria.local_naturalness:local_naturalness",
    "mean_reward": "preceptor.criteria.mean_reward:mean_reward",
    "perplexity": "preceptor.criteria.perplexity:perplexity",
    "persyn": "preceptor.criteria.persyn:persyn",
    "rank_surprisal": "preceptor.criteria.rank_surprisal:rank_surprisal",
    "scas": "preceptor.criteria.scas:scas",
    "size": "preceptor.criteria.size:size",
    "yield": "preceptor.criteria.yield_:yield_",
}
