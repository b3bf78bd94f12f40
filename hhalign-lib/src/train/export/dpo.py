from trl import DPOConfig, DPOTrainer


class Trainer(ExportedSteps, DPOTrainer):
    def _prepare_dataset(self, dataset, *_args, **_settings):
        return dataset  # already ids


def main():
    args = arguments()
    tokenizer = AutoTokenizer.from_pretrained(HERE / "model", local_files_only=True)
    config = DPOConfig(
        **common_settings(args),
        **LOSS,
        beta=BETA,
        max_length=MAX_LENGTH,
        max_prompt_length=None,
        max_completion_length=None,
        precompute_ref_log_probs=True,
        disable_dropout=DROPOUT == 0,
    )
    trainer = Trainer(
        model=load("model"),
        ref_model=load(REFERENCE),
        args=config,
        processing_class=tokenizer,
        callbacks=[Patience()],
        train_dataset=rows("train.jsonl", tokenizer),
        eval_dataset=rows("eval.jsonl", tokenizer),
    )
    run(trainer, args)


if __name__ == "__main__":
    main()
