"""Tests pages and notebooks in a real JupyterLab, in Chromium: with the kernel and without it.

HHALIGN_SLOW=2 doubles the time limits. HHALIGN_SHOTS=FOLDER keeps the screenshots.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, Frame, Locator, Page, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from harness import ROOT, SLOW, Checks

REDRAW_MS = 100.0  # at 10,000 pairs
PAIRS = 10  # to annotate
TOKEN = "test"
# Moves a slider to a share of its range, as a hand would.
SLIDE = """(slider, share) => {
    slider.value = +slider.min + share * (slider.max - slider.min);
    slider.dispatchEvent(new Event('input', { bubbles: true }));
}"""
LOSSES = """([one, data]) =>
    Array.from(hhalign.losses(one.name, one.settings, one.beta, structuredClone(data)))"""

SMALL = """let data = Dataset::embedded(0, 300)?;
let split = data.split(0.1)?;
let tokenizer = Tokenizer::train(&split.train, 600)?;
let train = TokenizedPairs::new(&split.train, &tokenizer, 256)?;
let watch = TokenizedPairs::new(&split.held_out, &tokenizer, 256)?;
let model = Gpt::new(Preset::Toy.config(tokenizer.vocab_size()), 0)?;"""
LOAD = ':dep hhalign = { path = "../hhalign-lib/kernel" }\nuse hhalign::prelude::*;'
LIVE = [
    LOAD,
    SMALL,
    "let mut sft = Sft::default();\n"
    "(sft.train.max_steps, sft.train.log_every) = (100000, 1);\n"
    "let run = sft.start(&model, &train, &watch)?;\n"
    "run.live()?",
    "run.wait(8.0);",
    'println!("still here: {}", hhalign::kernel_probe());',
]
REWARD_SETTINGS = """let mut reward = RewardConfig::default();
(reward.train.max_steps, reward.train.eval_every, reward.train.log_every) = (120, 20, 1);
(reward.train.batch_size, reward.train.micro_batch_size, reward.train.checkpoint_every) = (8, 4, 5);
reward.train.progress = false;"""
REWARD = [
    LOAD,
    SMALL,
    f"{REWARD_SETTINGS}\nlet run = reward.start(&model, &train, &watch)?;\nrun.live()?",
]
REWARD_RESUMED = [
    LOAD,
    'let run = Run::resume("NAME")?;\nlet note = run.note();\nrun.wait(600.0);',
    'println!("{note}; {} {}", run.phase(), run.reward_model()?.hash()?);',
    SMALL
    + f"\n{REWARD_SETTINGS}"
    + """
let whole = RewardModel::train(&reward, &model, &train, &watch, None)?;
println!("whole {}", whole.hash()?);""",
]
ANNOTATE = [
    LOAD,
    f"""let prompts: Vec<String> = (0..{PAIRS})
    .map(|i| format!("\\n\\nHuman: question {{i}}?\\n\\nAssistant:"))
    .collect();
fn reply(who: &str, i: usize) -> Reply {{
    let text = format!(" {{who}} says \\"{{i}}\\", <b>plainly</b>");
    Reply {{ text, ids: vec![1], ended: true }}
}}
let sft: Vec<Reply> = (0..{PAIRS}).map(|i| reply("one", i)).collect();
let dpo: Vec<Reply> = (0..{PAIRS}).map(|i| reply("two", i)).collect();
let folder = write_annotation_files(
    RunOptions::from_env()?.result("annotations"), &prompts, ("SFT", &sft), ("DPO", &dpo), 3,
)?;""",
    "lab::annotate(&folder)?",
    """let rate = read_preferences(&folder, "DPO")?;
println!(
    "wins {} losses {} ties {} open {} rate {:.3}",
    rate.wins, rate.losses, rate.ties, rate.open, rate.rate.value(),
);""",
]


def until(condition: Callable[[], Any], seconds: float, page: Page | None = None) -> Any:
    """Waits for a condition; returns its value, or None when the time is over."""
    end = time.monotonic() + seconds * SLOW
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except PlaywrightError:  # an element that is being replaced
            pass
        if page:
            page.wait_for_timeout(100)
        else:
            time.sleep(0.1)
    return None


class Lab:
    """A JupyterLab on copies of the notebooks; a link leads them to the library."""

    def __init__(self, folder: Path, shots: Path) -> None:
        self.folder, self.shots = folder, shots
        (folder / "hhalign-lib").symlink_to(ROOT / "hhalign-lib")
        self.notebooks = folder / "notebooks"
        self.notebooks.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = {
            **os.environ,
            "HHALIGN_RESULTS": str(folder / "results"),
            "HHALIGN_SFT_STEPS": "60",
            "HHALIGN_DPO_STEPS": "20",
            "HHALIGN_PAIRS": "300",
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
            "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        }
        command = [
            str(Path(sys.executable).with_name("jupyter-lab")),
            "--no-browser",
            f"--port={self.port}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={self.notebooks}",
            f"--IdentityProvider.token={TOKEN}",
            "--MultiKernelManager.default_kernel_name=hhalign",
            "--allow-root",
        ]
        self.log = (folder / "jupyter.log").open("w")
        self.process = subprocess.Popen(
            command, env=environment, stdout=self.log, stderr=self.log, start_new_session=True
        )
        if not until(self.answers, 60):
            log = (folder / "jupyter.log").read_text()
            raise SystemExit(f"JupyterLab does not answer; its log: {log[-2000:]}")

    def api(self, path: str, method: str = "GET") -> Any:
        """Calls JupyterLab's REST API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/{path}?token={TOKEN}", method=method
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or "null")

    def answers(self) -> bool:
        try:
            return bool(self.api("status"))
        except (OSError, urllib.error.URLError):
            return False

    def end_kernels(self) -> None:
        """Shuts down every kernel."""
        for kernel in self.api("kernels"):
            self.api(f"kernels/{kernel['id']}", "DELETE")

    def write(self, name: str, cells: list[str]) -> None:
        """Writes a notebook with these cells."""
        kernel = {
            "kernelspec": {"name": "hhalign", "display_name": "Rust (hhalign)", "language": "rust"}
        }
        nbformat.write(
            new_notebook(cells=[new_code_cell(c) for c in cells], metadata=kernel),
            self.notebooks / name,
        )

    def open(self, browser: Browser, name: str, theme: str = "light") -> Page:
        """Opens a notebook in a new page, and closes what JupyterLab shows in front of it."""
        page = browser.new_page(viewport={"width": 1280, "height": 1500}, color_scheme=theme)  # type: ignore[arg-type]
        page.problems = []  # type: ignore[attr-defined]
        page.on("pageerror", lambda error: page.problems.append(str(error)))  # type: ignore[attr-defined]
        page.goto(
            f"http://127.0.0.1:{self.port}/lab/tree/{name}?token={TOKEN}&reset", wait_until="load"
        )
        page.wait_for_selector(".jp-Notebook", timeout=120_000 * SLOW)
        until(lambda: self.kernel_is_idle(), 60, page)
        page.wait_for_timeout(1500)
        for button in page.locator(
            ".jp-Dialog button.jp-mod-accept, .Toastify__close-button"
        ).all():
            button.click()
        return page

    def framed(
        self, browser: Browser, name: str, cells: list[str], path: str, check: Checks
    ) -> tuple[Page, Frame | None]:
        """Runs the first three cells of a new notebook; returns the frame in the third's output."""
        self.write(f"{name}.ipynb", cells)
        page = self.open(browser, f"{name}.ipynb")
        for number in range(3):
            run_cell(page, number)
            wait_for_cell(page, number)
        frame = frame_of(page, path)
        check(f"the page of {path} is in the output", frame is not None)
        if frame is None:
            self.shot(page, f"{name}_missing")
        return page, frame

    def kernel_is_idle(self) -> bool:
        try:
            kernels = self.api("kernels")
        except urllib.error.HTTPError:  # a kernel that is starting
            return False
        return bool(kernels) and all(k["execution_state"] in ("idle", "starting") for k in kernels)

    def shot(self, page: Page, name: str) -> bytes:
        """Takes a screenshot."""
        return page.screenshot(path=str(self.shots / f"{name}.png"))

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.log.close()


def cell(page: Page, number: int) -> Locator:
    return page.locator(f'.jp-Cell[data-windowed-list-index="{number}"]')


def run_cell(page: Page, number: int) -> None:
    """Runs a cell and moves to the next, as a person does."""
    cell(page, number).locator(".jp-InputPrompt").click()
    page.keyboard.press("Shift+Enter")


def wait_for_cell(page: Page, number: int, seconds: float = 120) -> bool:
    """Waits until a cell shows its execution count."""
    prompt = cell(page, number).locator(".jp-InputPrompt")
    return bool(
        until(
            lambda: "*" not in (text := prompt.inner_text()) and any(c.isdigit() for c in text),
            seconds,
            page,
        )
    )


def output_of(page: Page, number: int) -> str:
    """Returns the text of a cell's outputs."""
    return "\n".join(cell(page, number).locator(".jp-OutputArea-output").all_inner_texts()).strip()


def stderr(page: Page) -> list[str]:
    """Returns the errors, and the text on stderr, that a notebook shows."""
    kinds = (f'[data-mime-type="application/vnd.jupyter.{kind}"]' for kind in ("stderr", "error"))
    found = page.locator(", ".join(kinds))
    return [text for text in found.all_inner_texts() if text.strip()]


def frame_of(page: Page, path: str) -> Frame | None:
    """Returns the frame that shows a page of the loopback server."""
    return until(lambda: next((f for f in page.frames if f"/{path}/" in f.url), None), 30, page)


def beta_lab(lab: Lab, browser: Browser, check: Checks) -> None:
    """Compares the page's losses with the library's, and times its redraw of 10,000 pairs."""
    folder, shots = lab.folder, lab.shots
    program = ROOT / "target/release/examples/parity"
    subprocess.run([program, "lab_page", folder], check=True)
    expected = json.loads((folder / "expected.json").read_text())
    page = browser.new_page(viewport={"width": 1100, "height": 1100})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((folder / "page.html").as_uri())
    page.wait_for_selector(".hhalign svg")
    worst = (0.0, "")
    for one in expected["expected"]:
        ours = page.evaluate(
            LOSSES, [{k: one[k] for k in ("name", "settings", "beta")}, expected["data"]]
        )
        for mine, rust in zip(ours, one["losses"], strict=True):
            apart = abs(mine - rust) / max(1.0, abs(rust)) if mine is not None else float("inf")
            worst = max(worst, (apart, f"{one['name']} at beta {one['beta']}"))
    names = {one["name"] for one in expected["expected"]}
    check(
        f"{len(names)} losses equal the library's to 1e-6",
        len(names) == 23 and worst[0] < 1e-6,
        f"{worst[0]:.1e} ({worst[1]})",
    )
    slider = page.locator("input[type=range]").first
    before = page.screenshot(path=str(shots / "beta_before.png"))
    times = []
    for step in (0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.3):
        slider.evaluate(SLIDE, step)
        page.wait_for_timeout(150)
        times.append(
            float(page.evaluate("document.querySelector('[data-redraw-ms]').dataset.redrawMs"))
        )
    after = page.screenshot(path=str(shots / "beta_after.png"))
    times.sort()
    check("the slider changes the picture", before != after)
    check(
        "redraw at 10,000 pairs, median ms",
        times[len(times) // 2] < REDRAW_MS * SLOW,
        times[len(times) // 2],
    )
    check("no error on the page", not problems, problems[:2] or "")
    page.close()


def notebook(lab: Lab, browser: Browser, check: Checks) -> None:
    """Runs notebook 02 from its first cell to its last."""
    shutil.copy(ROOT / "notebooks/02_beta_lab.ipynb", lab.notebooks)
    page = lab.open(browser, "02_beta_lab.ipynb", "dark")
    page.click('li.lm-MenuBar-item:has-text("Run")')
    page.click('li[data-command="runmenu:run-all"]')
    page.wait_for_timeout(3000)
    done = until(
        lambda: (
            lab.kernel_is_idle() and page.locator('.jp-InputPrompt:has-text("[*]")').count() == 0
        ),
        400,
        page,
    )
    check("02 runs from top to bottom", bool(done))
    # JupyterLab draws visible cells only; the saved file has them all.
    page.keyboard.press("Control+s")
    page.wait_for_timeout(2500)
    saved = nbformat.read(lab.notebooks / "02_beta_lab.ipynb", as_version=4)
    code = [c for c in saved.cells if c.cell_type == "code"]
    wrong = [
        o for c in code for o in c.outputs if o.output_type == "error" or o.get("name") == "stderr"
    ]
    check(
        "no cell shows an error",
        not wrong and all(c.execution_count for c in code),
        wrong[:1] or f"{len(code)} cells",
    )
    position = next(i for i, c in enumerate(saved.cells) if "lab::beta_lab" in c.source)
    cell(page, position).scroll_into_view_if_needed()
    slider = cell(page, position).locator("input[type=range]").first
    slider.scroll_into_view_if_needed()
    before = lab.shot(page, "02_before")
    slider.evaluate(SLIDE, 0.9)
    page.wait_for_timeout(500)
    check(
        "the beta slider of the notebook changes the picture", before != lab.shot(page, "02_after")
    )
    check("JupyterLab reports no error", not page.problems, page.problems[:2] or "")  # type: ignore[attr-defined]
    page.close()
    lab.end_kernels()


def live(lab: Lab, browser: Browser, check: Checks) -> None:
    """Checks a live chart: while another cell runs, paused on request, and without its kernel."""
    page, frame = lab.framed(browser, "live", LIVE, "runs", check)
    if frame is None:
        return page.close()
    points = lambda: int(frame.evaluate("+(document.body.dataset.points ?? 0)"))  # noqa: E731
    until(lambda: points() > 0, 30, page)
    run_cell(page, 3)
    page.wait_for_timeout(500)
    first, busy = points(), []
    for _ in range(5):
        page.wait_for_timeout(1000)
        busy.append("*" in cell(page, 3).locator(".jp-InputPrompt").inner_text())
    last = points()
    check(
        "its points grow while another cell runs",
        all(busy[:3]) and last > first + 3,
        f"{first} -> {last}",
    )
    lab.shot(page, "live_training")
    wait_for_cell(page, 3)
    state = lambda: frame.evaluate("fetch('state').then(r => r.json())")  # noqa: E731
    begin = time.monotonic()
    before = state()
    frame.locator("#pause").click()
    until(lambda: frame.evaluate("document.body.dataset.phase") == "paused", 10, page)
    shown = time.monotonic() - begin
    at = state()["step"]
    page.wait_for_timeout(1500)
    after = state()
    # A step may be running when the click arrives, and the click itself takes some time.
    per_step = before["seconds"] / max(before["step"], 1)
    check(
        "pause stops within a step",
        after["phase"] == "paused" and after["step"] - at <= 1,
        f"{after['step'] - at} steps after it; a step takes {per_step:.3f} s, "
        f"click to picture {shown:.2f} s",
    )
    lab.shot(page, "live_paused")
    frame.locator("#pause").click()
    check(
        "and resume continues", bool(until(lambda: state()["step"] > after["step"] + 2, 10, page))
    )
    run_cell(page, 4)
    wait_for_cell(page, 4)
    check("cells still run", "still here: 1" in output_of(page, 4), output_of(page, 4))
    check("no cell shows an error", not stderr(page), stderr(page)[:1] or "")
    url = frame.url.split("?")[0]
    port = int(url.split(":")[2].split("/")[0])
    page.keyboard.press("Control+s")
    page.wait_for_timeout(2000)
    lab.end_kernels()

    def closed() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    check("the server ends with the kernel", bool(until(closed, 15)))
    # The notebook is opened again, without the kernel that made its output.
    page.reload(wait_until="load")
    page.wait_for_selector(".jp-Notebook", timeout=120_000 * SLOW)
    page.wait_for_timeout(4000)
    output = cell(page, 2)
    text = (
        until(lambda: "cannot be reached" in output.inner_text() and output.inner_text(), 20, page)
        or output.inner_text()
    )
    still = output.frame_locator("iframe[sandbox]")
    pictures = still.locator("svg").count()
    check(
        "without the kernel it shows the last state and says why",
        "cannot be reached" in text and pictures > 1,
        f"{pictures} pictures",
    )
    check(
        "in a frame that can run no script",
        output.locator("iframe").first.get_attribute("sandbox") == "",
    )
    lab.shot(page, "live_without_kernel")
    check("JupyterLab reports no error", not page.problems, page.problems[:2] or "")  # type: ignore[attr-defined]
    page.close()
    lab.end_kernels()


def reward(lab: Lab, browser: Browser, check: Checks) -> None:
    """Checks that the training of a reward model is a run like any other, down to its resuming."""
    page, frame = lab.framed(browser, "reward", REWARD, "runs", check)
    if frame is None:
        return page.close()
    state = lambda: frame.evaluate("fetch('state').then(r => r.json())")  # noqa: E731
    until(lambda: state()["step"] > 12, 60, page)
    frame.locator("#pause").click()
    paused = until(lambda: state()["phase"] == "paused" and state(), 10, page)
    charts = frame.locator("body").inner_text() + "".join(frame.locator("svg").all_text_contents())
    lab.shot(page, "reward_paused")
    check(
        "a reward run is watched and paused",
        bool(paused) and "Accuracy" in charts and "Margin" in charts,
        paused and paused["step"],
    )
    if not paused:
        return page.close()
    frame.locator("#pause").click()
    until(lambda: state()["step"] > paused["step"] + 6, 30, page)
    name, step = paused["name"], state()["step"]
    check("and resumed", paused["step"] < step < paused["max_steps"], f"{paused['step']} -> {step}")
    page.close()
    lab.end_kernels()
    lab.write("reward_resumed.ipynb", [code.replace("NAME", name) for code in REWARD_RESUMED])
    page = lab.open(browser, "reward_resumed.ipynb")
    for number in range(len(REWARD_RESUMED)):
        run_cell(page, number)
        wait_for_cell(page, number, 600)
    resumed, whole = output_of(page, 2).split(), output_of(page, 3).split()
    was_resumed = re.search(r"from step \d+", output_of(page, 2))
    same = bool(was_resumed) and len(whole) == 2 and resumed[-1] == whole[-1]
    check(
        "killed with its kernel, it resumes to the same bits",
        same,
        f"{output_of(page, 2).strip()} | {' '.join(whole)}",
    )
    check("no cell shows an error", not stderr(page), stderr(page)[:1] or "")
    page.close()
    lab.end_kernels()


def annotation(lab: Lab, browser: Browser, check: Checks) -> None:
    """Judges ten pairs with the keyboard; checks the CSV and the win rate."""
    page, frame = lab.framed(browser, "annotate", ANNOTATE, "annotate", check)
    if frame is None:
        return page.close()
    name = frame.locator("input[type=text], input:not([type])").first
    name.fill("tester")
    name.press("Enter")
    until(lambda: frame.evaluate("document.body.dataset.current"), 10, page)
    lab.shot(page, "annotate")
    frame.locator("body").click(position={"x": 5, "y": 5})
    keys = ["a", "b", "t", "1", "2", "0", "a", "a", "b", "ArrowLeft"]
    said = dict(
        zip(["a", "b", "t", "1", "2", "0", "ArrowLeft"], ["A", "B", "tie", "A", "B", "tie", "A"])
    )
    judged: dict[str, str] = {}
    for i, key in enumerate(keys):
        current = frame.evaluate("document.body.dataset.current")
        judged[current] = said[key]
        page.keyboard.press(key)
        until(lambda: int(frame.evaluate("+document.body.dataset.judged")) == i + 1, 10, page)
    folder = lab.folder / "results/annotations"
    own = folder / "pairwise_preferences_for_annotation.tester.csv"
    rows = lambda path: list(csv.DictReader(path.open(newline="", encoding="utf-8")))  # noqa: E731
    stored = (
        until(
            lambda: own.exists() and all(r["preference"] for r in rows(own)) and rows(own), 10, page
        )
        or []
    )
    check(
        f"{PAIRS} judgements are in the CSV",
        {r["id"]: r["preference"] for r in stored} == judged and len(judged) == PAIRS,
        len(stored),
    )
    key_file = {r["id"]: r for r in rows(folder / "annotation_key.csv")}
    won = [
        {"A": key_file[i]["a"], "B": key_file[i]["b"], "tie": "tie"}[p] for i, p in judged.items()
    ]
    wins, ties = won.count("DPO"), won.count("tie")
    run_cell(page, 3)
    wait_for_cell(page, 3)
    losses, rate = PAIRS - wins - ties, (wins + ties / 2) / PAIRS
    expected = f"wins {wins} losses {losses} ties {ties} open 0 rate {rate:.3f}"
    shown = output_of(page, 3)
    check("and the win rate follows from them", expected == shown, shown)
    check("no cell shows an error", not stderr(page), stderr(page)[:1] or "")
    page.reload(wait_until="load")
    page.close()


def main() -> int:
    parts = {
        "beta_lab": beta_lab,
        "live": live,
        "reward": reward,
        "annotation": annotation,
        "notebook": notebook,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *parts], help="default: all")
    chosen = parser.parse_args().parts or list(parts)
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next((found for name in names if (found := shutil.which(name))), None)
    if chromium is None:
        print("skipped: the browser tests need Chromium (sudo apt-get install chromium)")
        print("browser: 0 passed, 0 failed")
        return 0
    check = Checks()
    with tempfile.TemporaryDirectory(prefix="hhalign-", ignore_cleanup_errors=True) as scratch:
        shots = Path(os.environ.get("HHALIGN_SHOTS") or scratch)
        shots.mkdir(parents=True, exist_ok=True)
        lab = Lab(Path(scratch), shots)
        try:
            with sync_playwright() as playwright:
                arguments = [
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-quic",
                    "--no-first-run",
                    "--disable-background-networking",
                ]
                browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
                for name in chosen:
                    parts[name](lab, browser, check)
                browser.close()
        finally:
            lab.stop()
    print(f"browser: {check.passed} passed, {check.failed} failed")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
