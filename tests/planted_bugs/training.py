"""Bugs in training."""

from . import bugs

# fmt: off
TRAINING = [
    *bugs("training.optimizers",
        ("rate outside the velocity", "SGD.update.block",
         "velocity += rate * gradient\nif decay:\n    velocity += rate * decay * value\nvalue -= velocity",
         "velocity += gradient\nif decay:\n    velocity += decay * value\nvalue -= rate * velocity",
         "optimizers::test_sgd_keeps_the_rate_inside_the_velocity"),
        ("Adam's first moment uncorrected", "Adam.update.block", "rate / correction1", "rate",
         "optimizers::test_adam_steps_by_the_rate_from_the_first_step_on[0.001-Adam]"),
        ("AdamW's decay enters the moments", "AdamW", "True", "False",
         "optimizers::test_adamw_decays_the_weights_themselves"),
        ("weight decay ignores its multiplier", "Optimizer.step", "self.weight_decay * p.decay_mult",
         "self.weight_decay", "optimizers::test_biases_do_not_decay_and_frozen_parameters_do_not_move[sgd]"),
        ("optimiser state handed out without a copy", "Optimizer.state", "to_host(a).copy()", "to_host(a)",
         "optimizers::test_restored_optimizer_goes_on_alike[sgd]"),
        ("restored optimiser counts its steps anew", "Optimizer.restore", "rest['steps']", "0",
         "optimizers::test_restored_optimizer_goes_on_alike[adam]"),
        ("an optimiser's state restored on the host", "Optimizer.restore", "to_device(arrays[f'{slot}/{name}'].copy())",
         "arrays[f'{slot}/{name}'].copy()", "gpu::test_a_run_goes_on_on_another_device[on the host-strict]"),
    ),
    *bugs("training.run",
        ("metrics not cut at the checkpoint", "Run._keep_metrics_up_to", "0 < record['iteration'] <= iteration", "True",
         "training::test_resume_writes_the_same_metrics_as_an_unbroken_run"),
        ("a checkpoint that was killed before it was told is not told", "Run._keep_metrics_up_to",
         "iteration and saved not in kept", "False",
         "faults::test_metrics_that_end_in_rubbish_go_on_where_the_checkpoint_stands"),
        ("a run goes on from what somebody else replaced", "Run.events", "_stamp(self.checkpoint) != self._found",
         "False", "faults::test_a_run_that_somebody_else_has_gone_on_with_meanwhile_is_refused"),
    ),
    *bugs("training.lock",
        ("a lock file that locks by being there", "locked", "os.O_RDWR | os.O_CREAT",
         "os.O_RDWR | os.O_CREAT | os.O_EXCL",
         "faults::test_a_second_process_is_refused_and_a_killed_one_locks_nothing"),
    ),
]
# fmt: on
