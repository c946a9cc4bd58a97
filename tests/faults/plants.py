"""Mistakes that somebody could make in the places that Lumi's promises stand on, each with a test that must then fail.

`tests.faults.plant` puts them into a copy of Lumi, one at a time. A text to be replaced stands once in its file.
"""

import dataclasses

Edit = tuple[str, str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plant:
    """One mistake.

    Attributes:
        fault: what it does.
        edits: file, text that stands there once, text instead of it.
        tests: node ids; all pass without the mistake, at least one fails with it.
    """

    fault: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]

    @property
    def file(self) -> str:
        """Where it is made."""
        return self.edits[0][0]


def _one(fault: str, file: str, before: str, after: str, *tests: str) -> Plant:
    return Plant(fault=fault, edits=((file, before, after),), tests=tests)


_MANIFEST, _BASE, _MIXED = "lumi/manifest.py", "lumi/stage/base.py", "lumi/data/mixed.py"
_GUARDS, _RUN = "tests/faults/test_guards.py::", "tests/test_run.py::"
_NUMERIC, _RESUME = "tests/faults/training/test_numeric.py::", "tests/faults/training/test_resume.py::"

_ARTEFACTS = (
    _one(
        "the files of an artefact are not flushed to disk before it is renamed",
        _MANIFEST,
        '            with path.open("rb") as file:\n                os.fsync(file.fileno())\n    for path in [*(p',
        "            pass\n    for path in [*(p",
        f"{_GUARDS}test_every_file_is_on_disk_before_the_rename_and_the_rename_before_it_is_acknowledged",
    ),
    _one(
        "the folder is not flushed to disk after the rename",
        _MANIFEST,
        "            _sync_folder(target.parent)\n",
        "",
        f"{_GUARDS}test_every_file_is_on_disk_before_the_rename_and_the_rename_before_it_is_acknowledged",
    ),
    _one(
        "the hash of a file is not compared with the manifest's",
        _MANIFEST,
        "if full and (actual :=",
        "if False and (actual :=",
        "tests/test_manifest.py::test_one_flipped_bit_is_found",
    ),
    _one(
        "a name in a manifest may lead out of its folder",
        "lumi/strangers.py",
        "if fault := _fault(name):",
        'if fault := "":',
        "tests/test_manifest.py::test_a_name_that_leads_out_of_the_folder_is_refused",
    ),
    _one(
        "a damaged checkpoint is taken as it is",
        "lumi/callbacks/checkpoint.py",
        '            verify(path, kind="checkpoint"',
        '            dict(path=path, kind="checkpoint"',
        f"{_GUARDS}test_the_newest_checkpoint_that_is_whole_is_taken_whatever_the_clock_said",
    ),
    _one(
        "the newest checkpoint is the one with the latest time, not the highest step",
        "lumi/callbacks/checkpoint.py",
        "return sorted(found, reverse=True)",
        "return sorted(found, reverse=True, key=lambda one: one[1].stat().st_mtime)",
        f"{_GUARDS}test_the_newest_checkpoint_that_is_whole_is_taken_whatever_the_clock_said",
    ),
    _one(
        "the state of training is unpickled",
        "lumi/callbacks/training_state.py",
        "weights_only=True",
        "weights_only=False",
        f"{_GUARDS}test_nothing_in_the_state_of_a_checkpoint_is_run",
    ),
    _one(
        "the lock of a folder is released as soon as it is taken",
        "lumi/lock.py",
        "        os.register_at_fork(",
        "        fcntl.flock(file, fcntl.LOCK_UN)\n        os.register_at_fork(",
        "tests/test_lock.py::test_a_second_process_is_refused_and_told_the_pid_of_the_first",
    ),
    _one(
        "a config may name any class",
        "lumi/config.py",
        'if parts[0] != "lumi" or not all(',
        "if not all(",
        "tests/test_config.py::test_a_foreign_module_is_not_even_imported",
    ),
    _one(
        "a key from the environment in a setting is not noticed",
        "lumi/settings.py",
        "lambda: check_no_secrets(settings, os.environ),",
        "lambda: None,",
        "tests/callbacks/test_wandb_secrets.py::test_a_key_in_a_setting_stops_the_run_before_anything_is_written",
    ),
)

_TOKENS = (
    _one(
        "text can become a control token",
        "lumi/tokenizer/frozen.py",
        'if piece.kind == "user"}',
        'if piece.kind in ("user", "control")}',
        "tests/tokenizer/test_frozen.py::test_known_adversaries_come_back_and_never_give_a_control_id",
    ),
    _one(
        "a tokenizer's identity is not the hash of its bytes",
        "lumi/tokenizer/frozen.py",
        "self.sha256 = sha256_bytes(model_bytes)",
        "self.sha256 = sha256_bytes(b'%d' % len(model_bytes))",
        "tests/tokenizer/test_frozen.py::test_identity_is_the_sha256_of_the_model_file",
    ),
    _one(
        "another tokenizer than the artefact's is taken",
        "lumi/tokenizer/frozen.py",
        "if expected is not None and actual != expected:",
        "if False:",
        "tests/tokenizer/test_frozen.py::test_another_tokenizer_than_expected_is_refused_with_both_hashes",
    ),
    _one(
        "what people say is supervised like what assistants say",
        "lumi/tokenizer/template.py",
        "mask += [spoken] * len(content)",
        "mask += [True] * len(content)",
        "tests/tokenizer/test_template.py::test_supervised_is_the_answer_with_its_end_and_eos_and_nothing_of_the_prompt",
    ),
    _one(
        "a mixture ignores its weights",
        "lumi/data/mixture.py",
        "_apportion(np.asarray(weights, dtype=np.float64))",
        "_apportion(np.ones(len(weights)))",
        "tests/data/test_mixture.py::test_ten_thousand_samples_have_the_mix_within_a_thousandth",
    ),
    _one(
        "all ranks read the same windows",
        "lumi/data/loading.py",
        "(part * self.world_size + self.rank)",
        "(part * self.world_size)",
        "tests/data/test_loading.py::test_ranks_share_no_sample_and_together_read_what_one_would",
    ),
)

_MODEL = (
    Plant(
        fault="targets are shifted twice",
        edits=(
            ("lumi/arch/loss.py", "loss_mask[:, 1:].nonzero(", "loss_mask[:, 2:].nonzero("),
            ("lumi/arch/loss.py", "index_select(0, places + 1)", "index_select(0, places + 2)"),
        ),
        tests=(
            "tests/stage/test_sentinels.py::test_a_model_trained_on_counting_predicts_the_next_number_and_not_the_one_after",
        ),
    ),
    _one(
        "documents of a window see each other",
        "lumi/arch/attention.py",
        "same = doc_ids.unsqueeze(2) == doc_ids.unsqueeze(1)",
        "same = torch.ones_like(doc_ids.unsqueeze(2) == doc_ids.unsqueeze(1))",
        "tests/arch/test_decoder.py::test_changing_a_token_of_one_document_changes_no_logit_of_another",
    ),
    _one(
        "a token sees those after it",
        "lumi/arch/attention.py",
        "is_causal=mask is None",
        "is_causal=False",
        "tests/arch/test_decoder.py::test_changing_a_token_changes_no_logit_before_it",
    ),
    _one(
        "documents of a window see each other, in the kernel for matrix units",
        "lumi/arch/native/attention.cpp",
        "const Whole seen = (place >= begin) & (place <= itself);",
        "const Whole seen = (place <= itself) | (begin < 0);",
        "tests/arch/test_native_attention.py::test_no_bit_of_another_document_or_a_later_token_is_seen",
    ),
    _one(
        "a token sees those after it, in the kernel for matrix units",
        "lumi/arch/native/attention.cpp",
        "return key + KEYS - 1 <= query && first",
        "return first",
        "tests/arch/test_native_attention.py::test_no_bit_of_another_document_or_a_later_token_is_seen",
    ),
    _one(
        "an adapter's scale is left out of its gradients",
        "lumi/arch/low_rank.py",
        "grad_a, grad_b = (pulled.T @ rows).mul_(ctx.scale), (grad.T @ reduced).mul_(ctx.scale)",
        "grad_a, grad_b = pulled.T @ rows, grad.T @ reduced",
        "tests/arch/test_lora.py::test_an_adapted_projection_is_what_peft_computes",
    ),
    _one(
        "the head's rows of chat markers are not trained beside an adapter",
        "lumi/arch/loss.py",
        "total[trained] += slope[:, trained].T @ x",
        "total[trained] += 0",
        "tests/arch/test_lora.py::test_where_a_few_rows_of_the_head_are_trained_the_others_have_no_gradient_and_those_have_theirs",
    ),
    _one(
        "positions go on from one document to the next",
        "lumi/arch/attention.py",
        "positions = index - torch.where(starts, index, 0).cummax(dim=1).values",
        "positions = index",
        "tests/arch/test_attention.py::test_positions_start_again_at_each_document",
    ),
    _one(
        "a tied model has two matrices",
        "lumi/arch/decoder.py",
        "        if config.tied:\n",
        "        if False:\n",
        "tests/arch/test_decoder.py::test_a_tied_model_has_one_matrix_for_embedding_and_head",
    ),
    _one(
        "norms decay",
        "lumi/optim/recipe.py",
        'is_matrix = parameter.dim() >= 2 and "embed_tokens" not in name',
        'is_matrix = "embed_tokens" not in name',
        "tests/optim/test_recipe.py::test_norms_and_embeddings_have_no_decay_and_all_other_weights_have",
    ),
)

_TRAINING = (
    Plant(
        fault="micro-batches are averaged, whatever number of targets they have",
        edits=(
            (_BASE, "return nll / self._divisor", "return nll / targets.clamp(min=1)"),
            (_BASE, "* len(parts) * self.trainer.world_size / sums[1]", "/ self._divisor"),
        ),
        tests=("tests/stage/test_sentinels.py::test_the_gradient_is_that_of_the_mean_over_all_targets",),
    ),
    _one(
        "the state of the random generators is not put where the step has it",
        _BASE,
        "            torch.default_generator.manual_seed(seed)\n",
        "            pass\n",
        "tests/stage/test_sentinels.py::test_random_numbers_drawn_between_steps_change_no_dropout",
    ),
    _one(
        "every micro-batch has the same dropout",
        _BASE,
        "np.random.SeedSequence((self.seed, self.global_rank, batch_idx))",
        "np.random.SeedSequence((self.seed, self.global_rank))",
        "tests/stage/test_sentinels.py::test_another_micro_batch_has_another_dropout",
    ),
    _one(
        "a resumed run reads its first windows again",
        _MIXED,
        "FromStep(length.start_step * length.accumulate, len(batches))",
        "FromStep(0, len(batches))",
        f"{_GUARDS}test_a_run_that_goes_on_reads_from_where_it_stands",
    ),
    _one(
        "a gradient that is no number reaches the weights",
        _BASE,
        "is_fine = self._scaler is not None or (",
        "is_fine = True or (",
        f"{_NUMERIC}test_a_step_that_is_no_number_is_refused_and_no_weight_changes",
    ),
    _one(
        "a loss that is no number is overlooked where its gradient is one",
        _BASE,
        "(math.isfinite(norm) and math.isfinite(loss))",
        "(math.isfinite(norm))",
        f"{_NUMERIC}test_a_step_that_is_no_number_is_refused_and_no_weight_changes",
    ),
    _one(
        "a GPU that is not waited for goes on after a step that it has refused",
        _BASE,
        "self._refused | ~is_finite",
        "~is_finite",
        f"{_NUMERIC}test_a_device_that_is_not_waited_for_refuses_by_itself_and_changes_nothing_more",
    ),
    _one(
        "a step that is left out moves the weights all the same",
        _BASE,
        "                parameter.grad = None",
        "                parameter.grad = torch.zeros_like(parameter)",
        f"{_NUMERIC}test_a_step_that_is_left_out_leaves_no_trace",
    ),
    _one(
        "validation has the dropout of training",
        _BASE,
        "        nll, targets = self.loss(batch)\n        source = int(",
        "        self.train()\n        nll, targets = self.loss(batch)\n        source = int(",
        f"{_GUARDS}test_validation_has_no_dropout",
    ),
    _one(
        "a signal is noted and not acted on",
        "lumi/callbacks/checkpoint.py",
        "number = largest(self.stop.number)",
        "number = largest(0)",
        f"{_RUN}test_a_signal_saves_the_step_and_says_so_in_the_exit_code",
    ),
    _one(
        "a run goes on with other settings than it was begun with",
        "lumi/resume.py",
        "    return [line for line in differences(before, after) if not is_allowed(line)]",
        "    return []",
        f"{_RESUME}test_every_key_is_refused_or_free_as_the_page_says",
    ),
    _one(
        "a run goes on with other data than it was begun with",
        "lumi/resume.py",
        'if before["data"] != fingerprints:',
        "if False:",
        f"{_RESUME}test_other_data_are_refused_by_name",
    ),
    _one(
        "the reference of DPO is the policy itself",
        "lumi/stage/objective.py",
        "return self.policy - self.reference",
        "return self.policy - self.policy.detach()",
        "tests/stage/test_objective.py::test_a_loss_is_what_its_paper_says",
    ),
    _one(
        "loss per token is called bits per byte",
        "lumi/eval/perplexity.py",
        "self.nll_nats / math.log(2) / self.bytes",
        "self.nll_nats / math.log(2) / self.targets",
        "tests/eval/test_perplexity.py::test_figures_follow_from_the_sums",
    ),
)

_SERVING = (
    _one(
        "any key opens the server",
        "lumi/serve/guard.py",
        'scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), key)',
        'scheme.lower() == b"bearer"',
        "tests/serve/test_auth.py::test_a_wrong_key_is_refused",
    ),
    _one(
        "a cancelled request keeps its place",
        "lumi/generate/engine.py",
        "            if self._active[row].reason is None:\n",
        '            if self._active[row].reason in (None, "cancelled"):\n',
        "tests/generate/test_engine.py::test_a_cancelled_request_leaves_with_the_next_step_and_a_waiting_one_takes_its_place",
    ),
    _one(
        "a row of the cache stays where it was when its request moves",
        "lumi/generate/engine.py",
        "                self.cache.move(len(self._active), row, len(last.prompt) + len(last.tokens))\n",
        "",
        "tests/generate/test_engine.py::test_who_joins_late_and_who_leaves_early_change_nothing",
    ),
)

PLANTS = (*_ARTEFACTS, *_TOKENS, *_MODEL, *_TRAINING, *_SERVING)
