from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer as PlainTrainer
from transformers import TrainingArguments


class Trainer(ExportedSteps, PlainTrainer):
    pass


def batch(pairs):
    """Join prompt and preferred reply; the loss is over the reply only."""
    ids = [torch.tensor(p["prompt_input_ids"] + p["chosen_input_ids"]) for p in pairs]
    labels = [
        torch.tensor([-100] * len(p["prompt_input_ids"]) + p["chosen_input_ids"]) for p in pairs
    ]
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(i) for i in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }


def main():
    args = arguments()
    tokenizer = AutoTokenizer.from_pretrained(HERE / "model", local_files_only=True)
    # The loss of a step is the mean over its tokens, over all processes and passes.
    config = TrainingArguments(
        **common_settings(args), remove_unused_columns=False, average_tokens_across_devices=True
    )
    trainer = Trainer(
        model=load("model"),
        args=config,
        data_collator=batch,
        processing_class=tokenizer,
        callbacks=[Patience()],
        train_dataset=rows("train.jsonl", tokenizer),
        eval_dataset=rows("eval.jsonl", tokenizer),
    )
    run(trainer, args)


if __name__ == "__main__":
    main()
