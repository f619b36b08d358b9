"""The shelf of rewards: each kind is one file that opens a function of answers.

`open_reward(setting, runtime) -> RewardSource` (see `preceptor.core.types`).

`VERIFIERS` are functions `(instruction, response, row, **options) -> float` in [0, 1].
"""

REWARDS = {
    "column": "preceptor.rewards.column:open_reward",
    "verifier": "preceptor.rewards.verifier:open_reward",
    "reward_model": "preceptor.rewards.reward_model:open_reward",
    "judge": "preceptor.rewards.judge:open_reward",
    "pairwise": "preceptor.rewards.pairwise:open_reward",
    "pairwise_logprob": "preceptor.rewards.pairwise_logprob:open_reward",
}
VERIFIERS = {
    "lab": "preceptor.lab.verifier:grade",
    "math": "preceptor.rewards.verifiers.math_equality:math",
    "exact_match": "preceptor.rewards.verifiers.exact_match:exact_match",
    "constraints": "preceptor.rewards.verifiers.constraints:constraints",
}
