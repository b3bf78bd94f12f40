//! `hhalign options`: docs/OPTIONS.md, made of the definitions that parse the options.

use clap::{Arg, Args, CommandFactory as _};

use crate::{Cli, Failure};

/// Print docs/OPTIONS.md.
#[derive(Args)]
#[command(hide = true)]
pub struct Options {}

const HEAD: &str = "\
# Options

`./scripts/run` runs a notebook with these options; `./scripts/run --help` prints them too. Most can
also be set as environment variables, which JupyterLab passes to the kernel:

```sh
HHALIGN_BETA=0.3 ./scripts/lab
```

A field of `RunOptions` set in a cell overrides the option, the option overrides its variable, and
the variable overrides the default. An empty variable counts as not set. `hhalign run` checks all
values before anything starts and writes them into `options.json` in the results folder. The
notebook's kernel reads that file; in the kernel, `HHALIGN_OPTIONS` holds its path.

";

const TAIL: &str = "
## Variables without an option

| variable | meaning |
|---|---|
| `HHALIGN_JUDGE_URL` | address of an OpenAI-compatible server whose chat model judges pairs, such as http://127.0.0.1:8000/v1 |
| `HHALIGN_JUDGE_MODEL` | name of that model |
| `HHALIGN_JUDGE_KEY` | key of that server, if it needs one |
| `HHALIGN_JUDGE_PRICE_IN`, `HHALIGN_JUDGE_PRICE_OUT` | price in dollars per million input and output tokens, used to report the cost of judging |
| `HHALIGN_JUDGE_CACHE` | folder where the judge's answers are cached; default: .cache/judge/ in the repository |
| `HHALIGN_LIVE_BASE` | public address of live pages behind a proxy; `{port}` stands for the port |
| `HHALIGN_LIVE_PORT` | fixed port of live pages |
| `HHALIGN_THREADS` | number of threads that share the work; default: one per core |
| `HF_HOME`, `HF_HUB_CACHE` | where files from the Hugging Face hub are kept, as for Python's huggingface_hub |
| `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` | mirror address, access token and offline mode, as for Python's huggingface_hub |

[CONTRIBUTING.md](CONTRIBUTING.md) lists the variables of the tests. This file is the output of
`hhalign options`; a test compares the two.
";

impl Options {
    pub fn run(self) -> Result<(), Failure> {
        print!("{HEAD}{}{TAIL}", table());
        Ok(())
    }
}

fn table() -> String {
    let mut command = Cli::command();
    // Adds what clap adds itself, such as --help.
    command.build();
    let run = command.find_subcommand("run").expect("the command run is declared");
    let rows = run.get_arguments().filter(|arg| arg.get_id() != "help").map(row);
    "| option | variable | default | meaning |\n|---|---|---|---|\n".to_string()
        + &rows.collect::<String>()
}

fn row(arg: &Arg) -> String {
    let code = |text: String| if text.is_empty() { text } else { format!("`{text}`") };
    let names = arg.get_value_names().unwrap_or_default().join(" ");
    let value = if arg.get_action().takes_values() { names } else { String::new() };
    let option = format!("--{} {value}", arg.get_long().unwrap_or_default());
    let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
    let defaults = if arg.is_hide_default_value_set() { &[][..] } else { arg.get_default_values() };
    let defaults = defaults.iter().map(|text| text.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let cells = [
        code(option.trim_end().into()),
        code(variable.unwrap_or_default()),
        code(if arg.get_action().takes_values() { defaults } else { String::new() }),
        arg.get_help().map(ToString::to_string).unwrap_or_default(),
    ];
    format!("| {} |\n", cells.join(" | "))
}
