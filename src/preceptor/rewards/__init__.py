"""The shelf of rewards: each kind is one file that opens a function of answers.

`open_reward(setting, runtime) -> RewardSource` (see `preceptor.core.types`).
"""

REWARDS = {
    "column": "preceptor.rewards.column:open_reward",
    "verifier": "preceptor.rewards.verifier:open_reward",
    "reward_model": "preceptor.rewards.reward_model:open_reward",
}
VERIFIERS = {"lab": "preceptor.lab.verifier:grade"}
