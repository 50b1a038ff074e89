#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Checks the page of `martlet serve` in a real browser, without a display: chat, history, the live view, and what it must not do.

    Scripts/check-page.py [--martlet .build/release/martlet | --url http://127.0.0.1:8080/] [--key KEY] [--screenshots FOLDER]

Without --martlet, which is served with its default model, and --url it starts Tests/Page/stub_server.py and checks more: broken streams, hostile answers, a server that loads, goes and comes back,
a prefix, a key. With one of them a model answers, and every request is given a limit: short ones end soon, and one that is to be stopped does not end by itself.
Needs Python and Debian's chromium and chromium-driver, nothing else. Prints one line per check that fails, and exits with
1 if there is any.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "Tests/Page"))
from browser import DOWN, ENTER, ESCAPE, RIGHT, SHIFT, TAB, Browser, BrowserError  # noqa: E402
import stub_server  # noqa: E402

# A busy machine may be slow; this passes only where a check fails.
PATIENCE = 60
checks = failures = 0


def check(sentence, is_right, seen=""):
    global checks, failures
    checks += 1
    if not is_right:
        failures += 1
        print(f"FAILED: {sentence}" + (f": {seen!r}"[:600] if seen != "" else ""), flush=True)
    return is_right


def wait(browser, sentence, script, *arguments):
    return check(sentence, browser.until(script, *arguments, patience=PATIENCE), browser.run("return document.body.innerText.slice(0, 400)"))


# What requests to a model are given beyond what the page sends.
SHORT = {"temperature": 0, "max_tokens": 40}
ENDLESS = {"temperature": 0, "max_tokens": 100_000, "ignore_eos": True}
# In the page before its own scripts. What it keeps lives as long as the page's own storage.
LIMITS = """
const ask = window.fetch;
window.fetch = (address, options) => {
  const limits = localStorage.getItem("check.limits");
  if (!limits || !String(address).endsWith("chat/completions")) return ask(address, options);
  return ask(address, { ...options, body: JSON.stringify({ ...JSON.parse(options.body), ...JSON.parse(limits) }) });
};
"""
has_model = False


def limit(browser, fields):
    """What the requests from now on have besides: nothing where the stub answers, which knows when to end."""
    if has_model:
        browser.run("localStorage.setItem('check.limits', arguments[0])", json.dumps(fields))


READY = "return document.querySelector('#server').dataset.kind === 'ready'"
QUIET = "return document.querySelectorAll('.message.is-running').length === 0 && document.querySelectorAll('.message.assistant').length > 0"


def open_page(browser, url):
    browser.open(url)
    wait(browser, "the page finds the server", READY)


def ask(browser, text):
    before = browser.count(".message")
    browser.type("#input", text + ENTER)
    wait(browser, f"“{text}” is sent", "return document.querySelectorAll('.message').length > arguments[0]", before)


def answer(browser, text):
    ask(browser, text)
    wait(browser, f"“{text}” is answered", QUIET)


def last(browser):
    return browser.text(".message.assistant:last-child .body")


def url_origin(url):
    return "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(url))


def look_around(browser, url, expected_errors=()):
    """Nothing came from elsewhere, and nothing was complained about, since the last look."""
    origin = url_origin(url)
    asked = [
        event["params"]["request"]["url"]
        for event in browser.log("performance")
        if event["method"] == "Network.requestWillBeSent" and event["params"]["documentURL"].startswith(origin + "/")
    ]
    check("the page asked for something", asked)
    strangers = [address for address in asked if not address.startswith((origin + "/", "blob:" + origin + "/"))]
    check("every request stays with the server", not strangers, strangers)
    said = [entry["message"] for entry in browser.log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    ours = ("Canvas2D: Multiple readback",)  # of this script's looking at canvases
    said = [message for message in said if not any(words in message for words in (*ours, *expected_errors))]
    check("the console is silent", not said, said)


# MARK: Against any server


def check_chat(browser, url):
    open_page(browser, url)
    limit(browser, SHORT)
    check("the model's name is shown", browser.text("#server-name") not in ("", "Connecting …"), browser.text("#server-name"))
    check("the title is the model's", browser.text("#server-name") in browser.run("return document.title"))
    about = browser.run("return document.querySelector('#server').title")
    check("what is served is said beside its name", re.search(r"\(\w+, [\d,]+ tokens of context\)$", about), about)
    check("an empty chat says what to do", browser.count(".example") == 3)
    answer(browser, "Write one sentence about the sea.")
    said = last(browser)
    check("the answer has words", len(said) > 10, said)
    facts = browser.text(".message.assistant .facts")
    for fact in ("tokens/s", "first after", "prompt"):
        check(f"an answer says its “{fact}”", fact in facts, facts)
    check("the field is empty again", browser.run("return document.querySelector('#input').value") == "")
    check("the chat is in the list", "Write one sentence about the sea." in browser.text("#chat-list"), browser.text("#chat-list"))

    browser.reload()
    wait(browser, "a reload keeps the chat", "return document.querySelectorAll('.message').length === 2")
    check("a reload keeps the answer", last(browser) == said, [said, last(browser)])
    wait(browser, "the page finds the server again", READY)

    browser.run("document.querySelector('.message.user .actions button[title^=Edit]').click()")
    browser.run("document.querySelector('.editor textarea').select()")
    browser.keys("Write one sentence about mountains.", ENTER)
    wait(
        browser,
        "an edited message is answered",
        "return document.querySelectorAll('.message.is-running').length === 0 && "
        "document.querySelector('.message.user .said')?.innerText.includes('mountains') && !!document.querySelector('.message.assistant .facts span')",
    )
    check("it is the second version", "2 / 2" in browser.text(".message.user .versions"), browser.text(".message.user .versions"))
    browser.run("document.querySelector('.message.user .versions button').click()")
    check("the first version is not lost", "sea" in browser.text(".message.user .said") and last(browser).startswith(said[:20]), last(browser))

    browser.run("document.querySelector('.message.assistant .actions button[title^=\"Answer again\"]').click()")
    wait(browser, "an answer is made again", QUIET + " && document.querySelector('.message.assistant .versions')?.innerText.includes('2 / 2')")


def check_quick(browser, url):
    """Who sends before the browser has found its chats keeps what was sent."""
    limit(browser, SHORT)
    slow = """
const open = indexedDB.open.bind(indexedDB);
indexedDB.open = (...rest) => {
  const request = open(...rest);
  Object.defineProperty(request, "onsuccess", { set(then) { request.addEventListener("success", (event) => setTimeout(() => then(event), 1500)); } });
  return request;
};
"""
    script = browser.cdp("Page.addScriptToEvaluateOnNewDocument", source=slow)["identifier"]
    browser.open("about:blank")
    open_page(browser, url)
    ask(browser, "Am I too early?")
    time.sleep(2)
    check("a message that was sent early stays", "Am I too early?" in browser.text(".message.user .said"), browser.text("#messages"))
    wait(browser, "and is answered", QUIET)
    wait(browser, "and is kept", "return document.querySelector('#chat-list').innerText.includes('Am I too early?')")
    browser.cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
    browser.open("about:blank")
    open_page(browser, url)
    check("a reload finds it", "Am I too early?" in browser.text(".message.user .said"), browser.text("#messages"))


def check_stop(browser, url, prompt):
    open_page(browser, url)
    limit(browser, ENDLESS)
    browser.click("#new-chat")
    ask(browser, prompt)
    wait(browser, "an answer comes", "return document.querySelector('.message.is-running .markdown')?.innerText.length > 30")
    browser.keys(ESCAPE)
    wait(browser, "Esc stops the answer", QUIET)
    said = last(browser)
    limit(browser, SHORT)
    check("a stopped answer keeps its text and says so", len(said) > 30 and "You stopped it" in said, said)
    check("one may go on from there", browser.count(".message:last-child .note button") == 1)


def check_keyboard(browser, url):
    open_page(browser, url)
    limit(browser, SHORT)
    browser.run("document.querySelector('#new-chat').click()")
    browser.run("document.querySelector('.skip').focus()")
    names = []
    for _ in range(60):
        browser.keys(TAB)
        name, is_seen = browser.run(
            "const node = document.activeElement; const style = getComputedStyle(node);"
            "const ring = parseFloat(style.outlineWidth) > 0 && style.outlineStyle !== 'none';"
            "return [node.id || node.textContent.trim() || node.tagName, ring || !!node.closest('.composer:focus-within')]"
        )
        names.append(name)
        if not is_seen and name != "BODY":
            check(f"the focus is seen on {name}", False)
        if name == "field-key":
            break
    for wanted in ("tab-live", "theme", "toggle-panel", "new-chat", "input", "field-temperature", "field-logprobs", "field-key"):
        check(f"Tab comes to {wanted}", wanted in names, names)
    browser.run("document.querySelector('#input').focus()")
    browser.keys("first line")
    browser.keys(ENTER, held=SHIFT)
    browser.keys("second line")
    check("Shift+Enter begins a line", browser.run("return document.querySelector('#input').value") == "first line\nsecond line")
    check("and sends nothing", browser.count(".message") == 0)
    browser.keys(ENTER)
    wait(browser, "Enter sends", QUIET)
    check("both lines are sent", browser.text(".message.user .said") == "first line\nsecond line", browser.text(".message.user .said"))


def check_alone(browser, url):
    """The same request once more, with the seed of the first."""
    open_page(browser, url)
    limit(browser, {"max_tokens": 40})  # drawn, so that a seed has something to say
    browser.click("#new-chat")
    answer(browser, "Write one sentence about the sea.")
    said = last(browser)
    browser.click(".message.assistant:last-child .actions button[title^='Run it again alone']")
    wait(browser, "it is run again alone", "return /every one of/.test(document.querySelector('.message.assistant:last-child .again').innerText)")
    told = browser.text(".message.assistant:last-child .again")
    check("with nobody beside it, it is the same", "Run again with nobody beside it, it is the same" in told, told)
    browser.reload()
    wait(browser, "a reload keeps that", "return /every one of/.test(document.querySelector('.message.assistant:last-child .again')?.innerText)")
    check("and the answer", last(browser).startswith(said), [said, last(browser)])
    limit(browser, SHORT)


def pixels(browser, selector):
    """How many colours a canvas shows."""
    return browser.run(
        "const canvas = document.querySelector(arguments[0]); if (!canvas) return 0;"
        "const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data; const seen = new Set();"
        "for (let at = 0; at < data.length; at += 4) if (data[at + 3]) seen.add(data[at] << 16 | data[at + 1] << 8 | data[at + 2]);"
        "return seen.size",
        selector,
    )


def check_live(browser, url, busy=None):
    open_page(browser, url)
    browser.run("document.querySelector('#new-chat').click()")
    if busy:
        limit(browser, ENDLESS)
        ask(browser, busy)
        limit(browser, SHORT)
    browser.click("#tab-live")
    wait(browser, "the view is live", "return document.querySelector('#live-state').innerText === 'live'")
    wait(browser, "requests are in the table", "return document.querySelectorAll('.requests tbody tr').length > 0")
    wait(browser, "there are steps", "return /a step/.test(document.querySelector('.steps .numbers').innerText)")
    time.sleep(0.5)
    check("pages are drawn", pixels(browser, ".map canvas") >= 2, pixels(browser, ".map canvas"))
    check("steps are drawn", pixels(browser, ".steps canvas") >= 3, pixels(browser, ".steps canvas"))
    check("totals are shown", all(text.strip() for text in browser.text(".totals strong").split("\n")), browser.text(".totals"))
    browser.run("document.querySelector('.map canvas').focus()")
    browser.keys(RIGHT, RIGHT, DOWN)
    browser.until("return /^Page /.test(document.querySelector('.map .readout').innerText)", patience=PATIENCE)
    check("the arrow keys say whose a page is", browser.text(".map .readout").startswith("Page "), browser.text(".map .readout"))
    browser.click("#tab-chat")
    if busy:
        browser.run("document.querySelector('#send.is-stop')?.click()")
        wait(browser, "the busy answer is over", QUIET)
        check("and was stopped", "You stopped it" in last(browser), last(browser))


CONTRAST = r"""
const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const parse = (text) => text.match(/[\d.]+/g).map(Number);
const bad = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !node.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true }) || node.closest(":disabled")) continue;
  let ground = node;
  let colour = [0, 0, 0, 0];
  for (; ground && colour[3] === 0; ground = ground.parentElement) {
    const [r, g, b, alpha = 1] = parse(getComputedStyle(ground).backgroundColor);
    colour = [r, g, b, alpha];
  }
  const [text, back] = [luminance(parse(getComputedStyle(node).color)), luminance(colour)];
  const ratio = (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
  if (ratio < 4.5) bad.push(walker.currentNode.data.trim().slice(0, 30) + " " + ratio.toFixed(2));
}
return bad.slice(0, 8);
"""


def check_looks(browser, url, pictures):
    """In both themes, on a phone and a wide screen: legible, and nothing sticks out."""
    for width, height in ((1440, 900), (390, 844)):
        for dark in (False, True):
            name = f"{width}-{'dark' if dark else 'light'}"
            browser.size(width, height, dark, scale=1 if width > 600 else 2)
            open_page(browser, url)
            check(
                f"{name}: the system's colours are taken",
                browser.run("return document.documentElement.dataset.theme") == ("dark" if dark else "light"),
            )
            for view in ("chat", "live"):
                browser.run("location.hash = arguments[0]", "#" + view)
                if view == "live":
                    wait(browser, f"{name}: the view is live", "return document.querySelector('#live-state').innerText === 'live'")
                else:
                    browser.run("document.querySelector('#messages').scrollTop = 0")
                time.sleep(0.7)
                bad = browser.run(CONTRAST)
                check(f"{name}, {view}: every text is legible", not bad, bad)
                wide = browser.run(
                    "return [document.documentElement.scrollWidth, ...[...document.querySelectorAll('main > section:not([hidden]), .messages')].map("
                    "(node) => node.scrollWidth - node.clientWidth + innerWidth)].reduce((a, b) => Math.max(a, b)) - innerWidth"
                )
                check(f"{name}, {view}: nothing is wider than the screen", wide <= 0, wide)
                if pictures:
                    browser.picture(pictures / f"{view}-{name}.png")
                    scroller = "#live" if view == "live" else "#messages"
                    browser.run("document.querySelector(arguments[0]).scrollTop = 1e6", scroller)
                    time.sleep(0.4)
                    browser.picture(pictures / f"{view}-end-{name}.png")
    browser.size(390, 844, scale=2)
    open_page(browser, url)
    for button, drawer in (("#toggle-chats", ".chats"), ("#toggle-panel", ".panel")):
        browser.click(button)
        check(f"on a phone {button} opens {drawer}", browser.run("return document.querySelector(arguments[0]).checkVisibility()", drawer))
        if pictures:
            browser.picture(pictures / f"drawer-{drawer[1:]}.png")
        browser.keys(ESCAPE)
        check(f"Esc closes {drawer}", not browser.run("return document.querySelector(arguments[0]).checkVisibility()", drawer))
    browser.size(1440, 900)
    open_page(browser, url)
    browser.click("#theme")
    check("the switch changes the colours", browser.run("return document.documentElement.dataset.theme") == "dark")
    browser.reload()
    check("and a reload keeps them", browser.run("return document.documentElement.dataset.theme") == "dark")
    wait(browser, "the page finds the server after a reload", READY)
    browser.click("#theme")


# MARK: Against the stub


def fresh(browser, url):
    open_page(browser, url)
    browser.click("#new-chat")


def check_answers(browser, stub):
    fresh(browser, stub.url)
    answer(browser, "markdown please")
    for selector in (
        "h2",
        "ol > li",
        "ul > li",
        "strong",
        "em",
        "del",
        "blockquote",
        "table td.align-right",
        "hr",
        "figure.code pre",
        "a[href^='https://arxiv.org']",
    ):
        check(f"markdown has its {selector}", browser.count(".message:last-child .markdown " + selector) > 0)
    check(
        "links open elsewhere and tell nothing",
        browser.run(
            "return [...document.querySelectorAll('.markdown a')].every((link) => link.target === '_blank' && link.rel.includes('noopener'))"
        ),
    )
    answer(browser, "think about it")
    check("thoughts are folded", browser.run("return document.querySelector('.message:last-child details.reasoning').open") is False)
    check("with their time", "Thought for" in browser.text(".message:last-child .reasoning summary"), browser.text(".reasoning summary"))
    browser.click(".message:last-child .reasoning summary")
    browser.until("return document.querySelector('.message:last-child .reasoning-text').innerText !== ''", patience=5)
    check(
        "and can be read",
        browser.text(".message:last-child .reasoning-text") == stub_server.THOUGHT,
        browser.text(".message:last-child .reasoning-text"),
    )
    answer(browser, "use a tool")
    check(
        "a call of a tool is shown",
        "weather" in browser.text(".message:last-child .call figcaption") and '"days": 3' in browser.text(".message:last-child .call pre"),
    )
    answer(browser, "the limit")
    check("an answer at its limit says so", "Cut off at the limit" in last(browser), last(browser))
    browser.click(".message:last-child .note button")
    wait(browser, "it goes on", QUIET + " && document.querySelector('.message:last-child .body').innerText.includes('goes on')")
    check("behind what there was", "A cache keeps" in last(browser), last(browser))
    check(
        "the server was asked to go on",
        stub.requests[-1].get("continue_final_message") is True and stub.requests[-1]["messages"][-1]["role"] == "assistant",
    )
    answer(browser, "empty")
    check("an empty answer says so", "empty" in last(browser), last(browser))

    fresh(browser, stub.url)
    browser.run("document.title = 'whole'")
    answer(browser, "unsafe")
    time.sleep(0.3)
    check("markup is text", browser.count(".message :is(img, script, style, iframe, object)") == 0)
    check("and it is shown as it is", "<img src=x" in last(browser) and "<style>" in last(browser), last(browser))
    check("it runs nothing", "broken" not in browser.run("return document.title"), browser.run("return document.title"))
    links = browser.run("return [...document.querySelectorAll('.message .markdown a')].map((link) => link.href)")
    check("only good links are links", links == ["https://example.org/", "https://elsewhere.example/pixel.png"], links)


def check_not_the_same(browser):
    """An answer that says how it was asked for is another one the second time, since its seed is given."""
    quiet = stub_server.Stub(engine=stub_server.Engine(is_quiet=True)).start()
    fresh(browser, quiet.url)
    answer(browser, "echo")
    first = quiet.requests[-1]
    browser.click(".message.assistant:last-child .actions button[title^='Run it again alone']")
    wait(browser, "a difference is told", "return /it differs from character \\d/.test(document.querySelector('.message:last-child .again').innerText)")
    check("it is the same request, with its seed", quiet.requests[-1] == {**first, "seed": 7}, quiet.requests[-1])
    quiet.stop()


def check_requests(browser, stub):
    """What the page sends."""
    fresh(browser, stub.url)
    browser.type("#field-system", "You are brief.")
    browser.type("#field-temperature", "0.7")
    browser.type("#field-top_k", "40")
    browser.type("#field-stop", "END\n\\n\\n")
    answer(browser, "echo")
    request = stub.requests[-1]
    check(
        "the system message comes first",
        request["messages"] == [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "echo"}],
        request,
    )
    check("set fields are sent", (request["temperature"], request["top_k"], request["stop"]) == (0.7, 40, ["END", "\n\n"]), request)
    check("empty fields are not", not {"top_p", "min_p", "seed", "max_tokens", "logprobs"} & set(request), request)
    check("the usage is asked for", request["stream"] is True and request["stream_options"] == {"include_usage": True})
    browser.reload()
    wait(browser, "a reload keeps the settings", READY + " && document.querySelector('#field-temperature').value === '0.7'")
    check("and the system message of the chat", browser.run("return document.querySelector('#field-system').value") == "You are brief.")
    answer(browser, "and then?")
    roles = [message["role"] for message in stub.requests[-1]["messages"]]
    check("history is sent", roles == ["system", "user", "assistant", "user"], roles)
    browser.click("#sampling-reset")
    answer(browser, "and now?")
    check("a reset sends none", not {"temperature", "top_k", "stop"} & set(stub.requests[-1]), stub.requests[-1].keys())

    browser.click("#field-logprobs")
    answer(browser, "words")
    request = stub.requests[-1]
    check("log-probabilities are asked for", request["logprobs"] is True and request["top_logprobs"] == 5)
    check(
        "tokens are coloured",
        browser.run("return new Set([...document.querySelectorAll('.message:last-child .token')].map((token) => token.className)).size") >= 3,
    )
    browser.point(".message:last-child .token")
    wait(browser, "pointing at a token shows what else there was", "return !document.querySelector('#tip').hidden")
    check("with probabilities", browser.count("#tip tr") == 5 and "%" in browser.text("#tip"), browser.text("#tip"))
    browser.point(".brand")
    browser.run("document.querySelector('.message:last-child .tokens').focus()")
    browser.keys(RIGHT, RIGHT)
    check(
        "and so do the arrow keys",
        browser.run("return !document.querySelector('#tip').hidden && document.querySelector('.token.is-chosen').dataset.index === '1'"),
    )
    browser.keys(ESCAPE)
    tokens = browser.run("return document.querySelector('.message:last-child .tokens').textContent")
    browser.run("document.querySelector('.message:last-child [aria-pressed]').click()")
    check(
        "the same as text",
        browser.text(".message:last-child .markdown p").strip() == tokens.strip(),
        [browser.text(".message:last-child .markdown"), tokens],
    )
    browser.click("#field-logprobs")


def check_failures(browser, stub):
    fresh(browser, stub.url)
    answer(browser, "break")
    check("a broken stream keeps its text", "A cache keeps" in last(browser) and "kept" in last(browser), last(browser))
    check(
        "and offers both ways",
        browser.text(".message:last-child .note button").split("\n") == ["Continue", "Retry"],
        browser.text(".message:last-child .note"),
    )
    browser.reload()
    wait(
        browser,
        "after a reload it is still there",
        READY + " && document.querySelector('.message:last-child .body').innerText.includes('A cache keeps')",
    )
    browser.run("[...document.querySelectorAll('.message:last-child .note button')].at(-1).click()")
    wait(browser, "a retry is a second version", QUIET + " && document.querySelector('.message.assistant .versions')?.innerText.includes('2 / 2')")
    answer(browser, "error")
    check("an error within the stream is told", "not finite" in last(browser) and "A cache" in last(browser), last(browser))
    answer(browser, "refuse")
    check("a refusal is told in the server's words", "maximum context length" in last(browser), last(browser))

    fresh(browser, stub.url)
    ask(browser, "slow")
    browser.until("return document.querySelector('.message.is-running .markdown')?.innerText.length > 20", patience=PATIENCE)
    before = stub.aborted
    browser.reload()
    wait(
        browser,
        "a tab that goes keeps what had come",
        READY + " && document.querySelector('.message:last-child .body')?.innerText.includes('A cache')",
    )
    check("and says that it is not all", "The page was closed" in last(browser), last(browser))
    end = time.monotonic() + PATIENCE
    while stub.aborted == before and time.monotonic() < end:
        time.sleep(0.05)
    check("the server sees that nobody reads", stub.aborted == before + 1, stub.aborted)

    fresh(browser, stub.url)
    ask(browser, "slow")
    browser.until("return document.querySelector('.message.is-running .markdown')?.innerText.length > 20", patience=PATIENCE)
    browser.click("#new-chat")
    answer(browser, "beside it")
    check("two chats are answered at once", browser.count("#chat-list li.is-running") == 1)
    browser.run("document.querySelector('#chat-list li.is-running .chat-title').click()")
    wait(browser, "the other goes on meanwhile", "return document.querySelector('.message.is-running .markdown')?.innerText.length > 60")
    browser.keys(ESCAPE)
    wait(browser, "and can be stopped", QUIET)


def check_files(browser, stub):
    fresh(browser, stub.url)
    answer(browser, "to be exported")
    fresh(browser, stub.url)
    answer(browser, "to be exported too")
    browser.run("window.kept = ''; URL.createObjectURL = (blob) => (blob.text().then((text) => (window.kept = text)), 'blob:none')")
    browser.run("HTMLAnchorElement.prototype.click = () => {}")
    browser.run("document.querySelector('#export-all').click()")
    text = browser.until("return window.kept", patience=PATIENCE)
    chats = json.loads(text)["chats"]
    check("all chats are exported", len(chats) == browser.count("#chat-list li"), len(chats))
    count = browser.count("#chat-list li")
    title = browser.text("#chat-list li:first-child")
    browser.run("document.querySelector('#chat-list li [title^=Delete]').click()")
    wait(browser, "a chat is deleted", "return document.querySelectorAll('#chat-list li').length === arguments[0]", count - 1)
    browser.run("document.querySelector('.toast .plain').click()")
    wait(browser, "and the deletion undone", "return document.querySelectorAll('#chat-list li').length === arguments[0]", count)
    browser.run("document.querySelector('#chat-list li [title^=Delete]').click()")
    wait(browser, "a chat is deleted again", "return document.querySelectorAll('#chat-list li').length === arguments[0]", count - 1)

    def bring(name, content):
        browser.run(
            "const files = new DataTransfer(); files.items.add(new File([arguments[1]], arguments[0]));"
            "const input = document.querySelector('#import-file'); input.files = files.files; input.dispatchEvent(new Event('change'))",
            name,
            content,
        )

    bring("chats.json", text)
    wait(browser, "an import brings it back", "return document.querySelectorAll('#chat-list li').length === arguments[0]", count)
    check("as it was", title in browser.text("#chat-list"), title)
    bring(
        "bad.json",
        '{"format": "martlet-chats", "chats": [{"id": "0123456789", "title": 5, "messages": {"x": {"id": "abcdefabcdef", "parent": "abcdefabcdef", '
        '"role": "user", "content": ["<img src=x>"]}, "y": {"id": "__proto__", "role": "user"}, "z": null}, "selected": {"root": 3}}, 7, null]}',
    )
    wait(browser, "a strange file does no harm", "return /One chat is imported/.test(document.querySelector('#toasts').innerText)")
    browser.run(
        "window.put = IDBObjectStore.prototype.put;" "IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError') }"
    )
    answer(browser, "and when the disk is full?")
    wait(browser, "a browser that has no room says so", "return /no room left/.test(document.querySelector('#toasts').innerText)")
    check("what is seen is still there", "A cache" in last(browser))
    browser.run("IDBObjectStore.prototype.put = window.put")
    bring("other.json", "[1]")
    wait(browser, "another file is refused", "return /other.json was not imported/.test(document.querySelector('#toasts').innerText)")
    browser.reload()
    wait(browser, "and the page still opens", READY)
    browser.run("document.querySelector('#chat-list li [title^=Rename]').click()")
    browser.run("document.querySelector('input.rename').select()")
    browser.keys("A better name", ENTER)
    wait(browser, "a chat can be renamed", "return document.querySelector('#chat-list').innerText.includes('A better name')")


def check_comings_and_goings(browser):
    """A server that loads, is killed and comes back, behind a prefix."""
    stub = stub_server.Stub(prefix="/a/b", loading=4).start()
    browser.open(stub.url)
    wait(browser, "while it loads the page says how far", "return /loads its model: \\d+ %/.test(document.querySelector('#banner').innerText)")
    browser.type("#input", "kept text")
    browser.keys(ENTER)
    check(
        "nothing is sent meanwhile, and the text is kept",
        browser.run("return document.querySelector('#input').value") == "kept text" and browser.count(".message") == 0,
    )
    wait(browser, "it comes alive by itself", READY + " && document.querySelector('#banner').hidden")
    check("the text is still there", browser.run("return document.querySelector('#input').value") == "kept text")
    browser.keys(ENTER)
    wait(browser, "and is sent then", QUIET)
    browser.click("#tab-live")
    wait(browser, "the live view works behind a prefix", "return document.querySelector('#live-state').innerText === 'live'")
    browser.click("#tab-chat")
    outside = [path for path in stub.paths if not path.startswith("/a/b/")]
    check("all stays behind the prefix", not outside, outside)
    port = stub.server_port
    stub.stop()
    browser.run("dispatchEvent(new Event('online'))")
    wait(
        browser,
        "a server that is gone is told",
        "return document.querySelector('#server').dataset.kind === 'down' && /does not answer/.test(document.querySelector('#banner').innerText)",
    )
    browser.type("#input", "for later")
    browser.keys(ENTER)
    check("the text is kept while it is gone", browser.run("return document.querySelector('#input').value") == "for later")
    stub = stub_server.Stub(port=port, prefix="/a/b").start()
    wait(browser, "it is found again when it is back", READY)
    check("with the text", browser.run("return document.querySelector('#input').value") == "for later")
    browser.keys(ENTER)
    wait(browser, "and it answers", QUIET + " && document.querySelectorAll('.message.assistant').length === 2")
    look_around(browser, stub.url, ("503", "ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE_CHUNKED"))
    stub.stop()


def check_key(browser):
    stub = stub_server.Stub(key="sesame", shows_text=False).start()
    browser.open(stub.url)
    wait(browser, "a server with a key is told", "return /asks for an API key/.test(document.querySelector('#banner').innerText)")
    browser.click("#banner-action")
    browser.keys("sesame", ENTER)
    wait(browser, "the key opens it", READY)
    answer(browser, "hello")
    browser.reload()
    wait(browser, "the tab keeps the key", READY)
    check("the browser does not, unless told", browser.run("return localStorage.getItem('martlet.key')") is None)
    browser.click("#tab-live")
    wait(browser, "the live view has the key", "return document.querySelector('#live-state').innerText === 'live'")
    browser.click("#live-text")
    wait(
        browser, "prompts that the server does not show are told", "return /does not show prompts/.test(document.querySelector('#toasts').innerText)"
    )
    wait(
        browser,
        "and the view goes on without",
        "return document.querySelector('#live-state').innerText === 'live' && !document.querySelector('#live-text').checked",
    )
    look_around(browser, stub.url, ("401", "403"))
    stub.stop()


def check_watching(browser, stub):
    """The live view is connected only while it is looked at, and shows what there is."""
    open_page(browser, stub.url + "#live")
    wait(browser, "the view is live", "return document.querySelector('#live-state').innerText === 'live'")
    check("it watches", stub.watchers == 1, stub.watchers)
    check("the tree is drawn", pixels(browser, ".tree canvas") >= 3)
    number = browser.text(".steps .readout") and browser.run("return document.querySelector('#total-reading small').innerText")
    wait(browser, "it moves", "return document.querySelector('#total-reading small').innerText !== arguments[0]", number)
    browser.point(".tree canvas", 20, 10)
    wait(browser, "pointing at the tree says what it is", "return /of a prompt/.test(document.querySelector('.tree .readout').innerText)")
    browser.point(".steps canvas", 600, 90)
    wait(browser, "pointing at a step says what it was", "return /^Step /.test(document.querySelector('.steps .readout').innerText)")
    browser.point(".brand")  # away from the rows, which come under it when the focus scrolls them
    browser.run(
        "[...document.querySelectorAll('.requests [data-state=reading] .request-name, .requests [data-state=generating] .request-name')].at(-1).focus()"
    )
    time.sleep(1)
    check("a request in the table stays marked while it moves", browser.count(".requests tr.is-chosen:focus-within") == 1)
    browser.click("#live-text")
    wait(browser, "prompts can be shown", "return /What is a page|swifts/.test(document.querySelector('.requests').innerText)")
    browser.click("#live-text")
    browser.click("#tab-chat")
    end = time.monotonic() + PATIENCE
    while stub.watchers and time.monotonic() < end:
        time.sleep(0.05)
    check("it stops watching when nobody looks", stub.watchers == 0, stub.watchers)

    browser.click("#tab-live")
    wait(browser, "it watches again", "return document.querySelector('#live-state').innerText === 'live'")
    browser.run(
        "Object.defineProperty(document, 'hidden', { configurable: true, get: () => true }); document.dispatchEvent(new Event('visibilitychange'))"
    )
    end = time.monotonic() + PATIENCE
    while stub.watchers and time.monotonic() < end:
        time.sleep(0.05)
    check("nor does it watch in a hidden tab", stub.watchers == 0, stub.watchers)

    many = stub_server.Stub(engine=stub_server.ManyThings()).start()
    open_page(browser, many.url + "#live")
    wait(
        browser,
        "two pools are two maps",
        "return document.querySelectorAll('.map').length === 2 && /window of 512/.test(document.querySelector('#live').innerText)",
    )
    seen = browser.text("#live")
    for words in ("paused for pages", "12 + 3", "And 3 more requests", "there are more", "1 paused"):
        check(f"the view tells “{words}”", words in seen, seen)
    many.stop()

    quiet = stub_server.Stub(engine=stub_server.Engine(is_quiet=True, pages=70000)).start()
    open_page(browser, quiet.url + "#live")
    wait(browser, "an engine that never worked is shown too", "return document.querySelector('#live-state').innerText === 'live'")
    check(
        "with what it has",
        "70,000" in browser.text(".map") and "No request" in browser.text("#live-requests") and "Nothing is cached" in browser.text("#live-tree"),
    )
    quiet.stop()


def check_long(browser, stub):
    """An answer of about 50 000 tokens: frames keep coming, a reader who scrolled up is left alone, and all of it arrives."""
    fresh(browser, stub.url)
    ask(browser, "long")
    browser.until("return document.querySelector('.message.is-running .markdown')?.innerText.length > 20000", patience=PATIENCE)
    browser.run(
        "const gaps = window.gaps = []; let before = performance.now(); const frame = () => { const now = performance.now(); gaps.push(now - before);"
        "before = now; window.frame = requestAnimationFrame(frame); }; window.frame = requestAnimationFrame(frame)"
    )
    check(
        "the end is followed",
        browser.run("const box = document.querySelector('#messages'); return box.scrollHeight - box.scrollTop - box.clientHeight") < 200,
    )
    browser.run("document.querySelector('#messages').scrollTop = 1000")
    time.sleep(1)
    check("who reads further up is left there", browser.run("return document.querySelector('#messages').scrollTop") == 1000)
    check("and can go back", not browser.run("return document.querySelector('#jump').hidden"))
    browser.run("document.querySelector('#jump').click()")
    wait(browser, "the long answer ends", QUIET)
    gaps = sorted(browser.run("cancelAnimationFrame(window.frame); return window.gaps"))
    print(
        f"a long answer: {len(gaps)} frames, median {gaps[len(gaps) // 2]:.1f} ms, 99 of 100 within {gaps[len(gaps) * 99 // 100]:.1f} ms, "
        f"longest {gaps[-1]:.0f} ms"
    )
    # No timing: that frames came at all while tens of thousands of tokens did.
    check("frames came", len(gaps) > 100, len(gaps))
    check(
        "all of it is there",
        browser.text(".message:last-child .markdown > :last-child") == "The end." and browser.count(".message:last-child h3") == 89,
    )
    code = browser.run(
        "return [...document.querySelectorAll('.message:last-child figure.code')].at(-1).querySelector('code').innerText.split('\\n').length"
    )
    check("with every line of code", code == 3000, code)


class Served:
    """A server with the default model, for as long as it is looked at."""

    def __init__(self, martlet):
        log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([martlet, "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL)
        line = self.process.stdout.readline()
        if not line:
            log.seek(0)
            sys.exit(f"check-page: {martlet} serve does not start: {log.read()[-1000:]}")
        self.url = "http://127.0.0.1:%d/" % json.loads(line)["port"]
        # A browser's console tells of every 503.
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(self.url + "health").close()
                return
            except OSError:
                time.sleep(0.1)
        sys.exit(f"check-page: {martlet} serve is not ready after {PATIENCE} s")

    def end(self):
        self.process.terminate()
        check("the server ends in order", self.process.wait(PATIENCE) == 0, self.process.returncode)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", help="the page of a server that runs")
    parser.add_argument("--key", help="its API key, where it has one")
    parser.add_argument("--only", help="of the parts only those whose names have this in them")
    parser.add_argument("--screenshots", type=pathlib.Path, help="a folder for pictures, light and dark, 390 and 1440 wide")
    parser.add_argument("--martlet", help="a binary whose page it is")
    arguments = parser.parse_args()
    served = Served(arguments.martlet) if arguments.martlet else None
    arguments.url = arguments.url or served and served.url
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    global has_model
    has_model = bool(arguments.url)
    stub = None if arguments.url else stub_server.Stub().start()
    quiet = None if arguments.url else stub_server.Stub(engine=stub_server.Engine(is_quiet=True)).start()
    url = arguments.url or stub.url
    busy = None if stub else "Count from one to five hundred, in words, one number after the other."
    parts = [
        ("chat", lambda: check_chat(browser, url)),
        ("quick", lambda: check_quick(browser, url)),
        ("stop", lambda: check_stop(browser, url, busy or "slow")),
        ("alone", lambda: check_alone(browser, url if arguments.url else quiet.url)),
        ("keyboard", lambda: check_keyboard(browser, url)),
        ("live", lambda: check_live(browser, url, busy)),
        ("look around", lambda: look_around(browser, url)),
    ]
    if stub:
        parts += [
            ("answers", lambda: check_answers(browser, stub)),
            ("requests", lambda: check_requests(browser, stub)),
            ("not the same", lambda: check_not_the_same(browser)),
            ("failures", lambda: check_failures(browser, stub)),
            ("files", lambda: check_files(browser, stub)),
            ("watching", lambda: check_watching(browser, stub)),
            ("long", lambda: check_long(browser, stub)),
            ("look around again", lambda: look_around(browser, url, ("status of 400", "ERR_INCOMPLETE_CHUNKED"))),
            (
                "a chat for the pictures",
                lambda: (
                    fresh(browser, url),
                    answer(browser, "Why does a model keep keys and values? Think, and use markdown."),
                    answer(browser, "Show me code for it in Swift."),
                    answer(browser, "What is the limit?"),
                ),
            ),
        ]
    parts.append(("looks", lambda: check_looks(browser, url, arguments.screenshots)))
    if stub:
        parts += [("comings and goings", lambda: check_comings_and_goings(browser)), ("key", lambda: check_key(browser))]
    try:
        with Browser() as browser:
            browser.size(1440, 900)
            if has_model:
                browser.cdp("Page.addScriptToEvaluateOnNewDocument", source=LIMITS)
            if arguments.key:
                browser.open(url)
                browser.run("sessionStorage.setItem('martlet.key', arguments[0])", arguments.key)
                browser.until("return document.querySelector('#server').dataset.kind === 'locked'")
                browser.log("browser")  # that it was refused without the key is right
            for name, part in parts:
                if arguments.only and arguments.only not in name:
                    continue
                start = time.monotonic()
                try:
                    part()
                except BrowserError as error:
                    traceback.print_exc()
                    check(f"{name} is checked to its end", False, str(error))
                print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
    except BrowserError as error:
        sys.exit(f"check-page: {error}")
    finally:
        if served:
            served.end()
    print(f"page: {checks} checks, {failures} failed")
    sys.exit(failures != 0)


if __name__ == "__main__":
    main()
