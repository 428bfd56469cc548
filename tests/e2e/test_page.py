"""The console's page in a real browser: what a person sees and does, and where secrets never are."""

import re

import pytest
from harness import eventually
from harness_browser import DESKTOP, PHONE, Browser, require
from provider_simulator import Answer, Behaviour
from selenium.webdriver.common.keys import Keys
from test_d1 import BAD_KEY, serves, stated

GUEST = "guest-123456"


@pytest.fixture
def browser(tmp_path):
    require()
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


@pytest.fixture
def page(browser, start, simulator, d1):
    """A signed-in page over three keys in D1, and its Envoy."""
    for label in ("one", "two", "three"):
        d1.insert("openai", simulator.key("openai", label=label).secret, remark=f"remark {label}")
    balancer = start(env={"PROVIDER_KEYS": None, "SYNC_SECONDS": "600"}, d1=d1)
    eventually(lambda: serves(balancer, "warm-up") == {"one", "two", "three"})
    browser.open(balancer.port)
    browser.sign_in(balancer.auth_key)
    browser.until(lambda: len(browser.rows()) == 3)
    yield balancer
    browser.check(balancer.secrets, balancer.auth_key)


def mask(key):
    return f"{key.secret[:4]}…{key.secret[-4:]}"


def test_signing_in(browser, start, simulator):
    simulator.key("openai")
    boss = "boss-123456789"
    balancer = start(env={"AUTH_KEY": f"{boss};{GUEST}=openai"})
    browser.open(balancer.port, "/one-balance")
    assert browser.driver.current_url.endswith("/one-balance/")
    assert browser.all("#auth")
    assert not browser.all("#pool, #keys tr, #leave"), "nothing is shown without a sign-in"
    for wrong, why in (
        ("nobody-12345", "not known here"),
        (GUEST, "for some providers only"),
        ("ключ", "of ASCII only"),
    ):
        browser.sign_in(wrong)
        browser.until(lambda why=why: why in browser.text("#problem") and browser.all("#problem"))
        assert browser.all("#auth")
        assert not browser.all("#keys tr")
    browser.run("location.reload()")
    browser.until(lambda: browser.all("#auth"))
    assert browser.run("return sessionStorage.length") == 0, "a key that opens nothing is not kept"
    browser.sign_in(boss)
    browser.until(lambda: len(browser.rows()) == 1)
    browser.check({boss, GUEST, *balancer.secrets}, boss)
    assert not browser.all("#problem, #auth")

    browser.run("location.reload()")
    browser.until(lambda: len(browser.rows()) == 1), "the tab stays signed in"
    browser.driver.switch_to.new_window("tab")
    browser.open(balancer.port)
    browser.until(lambda: browser.all("#auth"))
    browser.driver.close()
    browser.driver.switch_to.window(browser.driver.window_handles[0])

    browser.click("#leave")
    browser.until(lambda: browser.all("#auth"))
    assert browser.run("return sessionStorage.length") == 0
    assert browser.run("return document.querySelectorAll('#keys tr, #providers li').length") == 0


def test_without_d1_it_is_read_only_and_says_so(browser, start, simulator):
    key = simulator.key("openai")
    balancer = start()
    browser.open(balancer.port)
    browser.sign_in(balancer.auth_key)
    browser.until(lambda: mask(key) in browser.row("ready"))
    assert "without D1" in browser.text("#read-only")
    assert not browser.all(".edits")
    assert "of the configuration" in browser.rows()[0]
    simulator.script(stated(300), model="busy")
    assert balancer.client.chat("openai/busy").status_code == 429
    browser.until(lambda: "no key for some model for 00:04:5" in browser.text("#providers"))


@pytest.mark.waits
def test_a_key_cools_and_recovers_before_ones_eyes(browser, page, simulator, model):
    one, two, _ = simulator.keys
    simulator.script(stated(7), key=one, model=model)
    simulator.script(Answer(401, body=BAD_KEY), key=two, model=model)
    assert serves(page, model) == {"three"}
    browser.until(lambda: "cooling" in browser.row("remark one"))
    row = browser.row("remark one")
    assert model in row
    assert "00:00:0" in row
    assert "rate limit" in row
    assert "429" in row
    assert "blocked" in browser.row("remark two")
    assert "1 ready, 1 cooling, 1 blocked" in browser.text("#providers")
    left = browser.text("#keys .countdown")
    browser.until(lambda: browser.text("#keys .countdown") < left)
    browser.screenshot("cooling")
    browser.until(lambda: "ready" in browser.row("remark one"))
    assert "429" in browser.row("remark one"), "what happened can still be read"


def test_search_state_and_order(browser, page, simulator, model):
    simulator.script(stated(300), key=simulator.keys[2], model=model)
    simulator.script(stated(100), key=simulator.keys[1], model=model)
    assert serves(page, model) == {"one"}

    def shown():
        return [next(label for label in ("one", "two", "three") if f"remark {label}" in row) for row in browser.rows()]

    browser.one("#sort").send_keys("longest")
    browser.until(lambda: shown() == ["three", "two", "one"])
    browser.one("#state").send_keys("cooling")
    browser.until(lambda: shown() == ["three", "two"])
    browser.one("#search").send_keys("REMARK TW")
    browser.until(lambda: shown() == ["two"])
    assert browser.driver.switch_to.active_element.get_attribute("id") == "search"


def test_keys_are_added_and_deleted(browser, page, simulator, d1, model):
    new = [simulator.key("openai", label=label) for label in ("four", "five")]
    page.secrets.update(key.secret for key in new)
    browser.click("#add-open")
    pasted = f"{new[0].secret},\n {simulator.keys[0].secret}\n\n{new[1].secret} ,"
    browser.one("#add-keys").send_keys(pasted)
    browser.fill("#add-remark", "<b>bulk</b>")
    browser.click("#add-form button")
    browser.until(lambda: browser.text("#news") == "2 keys added, 1 unchanged.")
    browser.until(lambda: len(browser.rows()) == 5)
    assert mask(new[0]) in browser.row(mask(new[0]))
    assert "<b>bulk</b>" in browser.row(mask(new[1])), "text stays text"
    assert not browser.all("dialog")
    assert d1.sql("SELECT count(*) AS n FROM keys WHERE remark = '<b>bulk</b>'")[0]["n"] == 2
    assert serves(page, model) | serves(page, model) >= {"four", "five"}

    browser.choose(mask(new[0]))
    browser.click("#delete")
    browser.until(lambda: browser.all("#sure"))
    browser.click("#sure-no")
    assert len(browser.rows()) == 5
    browser.click("#delete")
    browser.click("#sure-yes")
    browser.until(lambda: browser.text("#news") == "1 key deleted.")
    browser.until(lambda: len(browser.rows()) == 4)
    assert d1.sql("SELECT count(*) AS n FROM keys")[0]["n"] == 4


def test_blocked_keys_come_back_or_go(browser, page, simulator, d1, model):
    for key in simulator.keys[:2]:
        simulator.script(Answer(401, body=BAD_KEY), key=key, model="killer")
    assert serves(page, "killer") == {"three"}
    browser.until(lambda: "2 blocked" in browser.text("#providers"))
    browser.choose("remark one")
    browser.until(lambda: browser.text("#chosen-count") == "1 chosen")
    browser.click("#activate")
    browser.until(lambda: browser.text("#news") == "1 key re-activated.")
    browser.until(lambda: "ready" in browser.row("remark one"))
    eventually(lambda: d1.sql("SELECT status FROM keys WHERE remark = 'remark two'")[0]["status"] == "blocked")
    browser.until(lambda: re.search(r"since .*(GMT|UTC|[A-Z]{3})", browser.row("remark two"))), "whose time it is"
    browser.click("#delete-blocked")
    browser.until(lambda: "Delete the 1 blocked keys of openai" in browser.text("#sure-text"))
    browser.click("#sure-yes")
    browser.until(lambda: browser.text("#news") == "1 key deleted.")
    browser.until(lambda: len(browser.rows()) == 2)
    assert serves(page, model) == {"one", "three"}


def test_coolings_are_cleared(browser, page, simulator, d1, model):
    one = simulator.keys[0]
    for name in (model, "other"):
        simulator.script(stated(1000), key=one, model=name)
        assert serves(page, name) == {"two", "three"}
    browser.until(lambda: browser.row("remark one").count("clear") == 2)
    browser.click(f"button[aria-label='Clear the cooling of {mask(one)} for {model}']")
    browser.until(lambda: browser.row("remark one").count("clear") == 1)
    assert serves(page, model) == {"one", "two", "three"}
    browser.choose("remark one")
    browser.click("#clear")
    browser.until(lambda: "ready" in browser.row("remark one"))
    assert serves(page, "other") == {"one", "two", "three"}


def test_d1_away(browser, page, simulator, d1):
    new = simulator.key("openai", label="four")
    page.secrets.add(new.secret)
    d1.fault("status", times=1, status=500)
    browser.click("#add-open")
    browser.one("#add-keys").send_keys(new.secret)
    browser.click("#add-form button")
    browser.until(lambda: "D1 has a problem of its own" in browser.text("#add-problem"))
    assert len(browser.rows()) == 3
    (
        browser.until(lambda: browser.one("#add-keys").get_attribute("value") == new.secret, 1),
        "it need not be pasted again",
    )
    browser.click("#add-form button")
    browser.until(lambda: len(browser.rows()) == 4)


@pytest.mark.waits
def test_an_edit_under_way(browser, page, simulator, d1):
    d1.fault("delay", seconds=2)
    # The reads of the sync come when they come.
    edits = lambda: [call for call in d1.calls() if not call["statements"][0].startswith("SELECT")]  # noqa: E731
    before = len(edits())
    browser.choose("remark one")
    browser.click("#delete-blocked")
    browser.click("#sure-no")
    browser.click("#clear")
    browser.click("#clear")
    browser.until(lambda: browser.text("#news") == "Waiting for D1…")
    browser.choose("remark two")
    browser.until(lambda: "cleared" in browser.text("#news"))
    assert len(edits()) == before + 1, "two clicks are one edit"
    browser.until(lambda: browser.text("#chosen-count") == "1 chosen"), "what was chosen meanwhile stays so"
    # Why an edit failed outlives the refresh that finds Envoy again.
    browser.run("window.real = fetch; window.fetch = () => Promise.reject(new TypeError('away'))")
    browser.until(lambda: "No answer" in browser.text("#problem"))
    d1.fault("status", times=1, status=500)
    browser.run("clearTimeout(timer); window.fetch = real; $('clear').click()")
    browser.until(lambda: "D1 has a problem of its own" in browser.text("#problem"))
    browser.run("return refresh()")
    assert "D1 has a problem of its own" in browser.text("#problem")
    # Nor does the answer to one come after a sign-out.
    d1.fault("delay", seconds=1)
    browser.click("#clear")
    browser.click("#leave")
    browser.run("return new Promise((done) => setTimeout(done, 2000))")
    assert not browser.all("#problem")
    assert browser.text("#news") == ""


def test_envoy_away(browser, page, simulator):
    page.envoy.process.send_signal(19)
    try:
        browser.run("window.fetch = () => Promise.reject(new TypeError('away'))")
        browser.until(lambda: "No answer" in browser.text("#problem"))
        assert len(browser.rows()) == 3, "what was known stays"
    finally:
        page.envoy.process.send_signal(18)
    browser.run("location.reload()")
    browser.until(lambda: len(browser.rows()) == 3 and not browser.all("#problem"))


def test_by_keyboard_alone(browser, start, simulator, d1):
    keys = [simulator.key("openai", label=label) for label in ("one", "two")]
    for key in keys:
        d1.insert("openai", key.secret, remark=key.label)
    balancer = start(env={"PROVIDER_KEYS": None}, d1=d1)
    eventually(lambda: serves(balancer, "warm-up") == {"one", "two"})
    browser.open(balancer.port)

    def focus():
        return browser.driver.switch_to.active_element

    def tab_to(name):
        for _ in range(40):
            browser.press(Keys.TAB)
            if focus().accessible_name == name:
                return
        raise AssertionError(f"Tab does not lead to {name!r}")

    tab_to("AUTH_KEY")
    browser.press(balancer.auth_key, Keys.ENTER)
    browser.until(lambda: focus().accessible_name == "Search")
    tab_to(f"Choose {mask(keys[0])} one")
    browser.press(Keys.SPACE)
    browser.until(lambda: browser.text("#chosen-count") == "1 chosen")
    # A refresh takes neither the focus nor the choice away.
    browser.run("return refresh()")
    assert focus().accessible_name == f"Choose {mask(keys[0])} one"
    browser.run("document.querySelector('#search').focus()")
    tab_to("Delete…")
    browser.press(Keys.ENTER)
    browser.until(lambda: browser.all("#sure"))
    browser.press(Keys.ESCAPE)
    browser.until(lambda: not browser.all("#sure"))
    assert focus().accessible_name == "Delete…"
    assert len(browser.rows()) == 2, "Escape is no"


def test_everything_has_a_name_and_a_role(browser, page):
    def names(within):
        controls = browser.all(f"{within} :is(button, input, select, textarea, table, nav)")
        assert all(control.accessible_name for control in controls)
        return {control.accessible_name for control in controls}

    assert names("body") >= {"Sign out", "Search", "State", "Order", "Keys of openai", "Pages"}
    browser.click("#add-open")
    assert {"Provider", "Remark, for all of them", "Add", "Cancel"} < names("#add")
    assert browser.one("#add").accessible_name == "Add keys"
    browser.click("#add-cancel")
    roles = {tag: browser.one(tag).aria_role for tag in ("table", "#keys tr", "#keys td", "#news", "#problem", "nav")}
    assert roles["#news"] == "status"
    assert (roles["table"], roles["#keys tr"], roles["#keys td"]) == ("table", "row", "cell")
    assert browser.run("return document.documentElement.lang") == "en"


CONTRAST = """
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
const light = (text) => {
  const [r, g, b] = rgb(text).map((part) => linear(part / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const back = (node) => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if ((rgb(colour)[3] ?? 1) > 0) return colour;
  }
  return "rgb(255, 255, 255)";
};
const bad = [];
for (const node of document.querySelectorAll("body *")) {
  const says = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  if (!says || !node.checkVisibility() || node.matches(":disabled")) continue;
  const [one, other] = [light(getComputedStyle(node).color), light(back(node))].sort((a, b) => b - a);
  if ((one + 0.05) / (other + 0.05) < 4.5) bad.push(node.outerHTML.slice(0, 120));
}
return bad;
"""
"""The texts whose contrast with what is behind them is below WCAG's 4.5."""


def test_light_and_dark_wide_and_narrow(browser, page, simulator, model):
    one, two, _ = simulator.keys
    simulator.script(stated(3000), key=one, model=model)
    two.behaviour = Behaviour.REVOKED
    assert serves(page, model) == {"three"}
    browser.until(lambda: "blocked" in browser.row("remark two"))
    backs = set()
    for scheme in ("light", "dark"):
        browser.scheme(scheme)
        for name, size in (("desktop", DESKTOP), ("phone", PHONE), ("small phone", (320, 640))):
            browser.size(*size)
            assert browser.run(CONTRAST) == []
            assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), f"{name} scrolls sideways"
            browser.screenshot(f"{scheme} {name}")
        backs.add(browser.run("return getComputedStyle(document.body).backgroundColor"))
        browser.click("#add-open")
        browser.screenshot(f"{scheme} add")
        assert browser.run("return document.querySelector('#add').getBoundingClientRect().right <= innerWidth")
        browser.click("#add-cancel")
    assert len(backs) == 2
    assert browser.all("#activate"), "edits can be done on a phone"


def test_many_keys_in_pages(browser, start, simulator, d1):
    d1.insert_all([{"id": f"{n:04}", "provider": "groq", "key": f"filler-{n:020}"} for n in range(120)])
    balancer = start(env={"PROVIDER_KEYS": None}, d1=d1)
    browser.open(balancer.port)
    browser.sign_in(balancer.auth_key)
    browser.until(lambda: browser.text("#range") == "1 to 50 of 120")
    browser.click("#next")
    browser.until(lambda: browser.text("#range") == "51 to 100 of 120")
    browser.click("#next")
    browser.until(lambda: browser.text("#range") == "101 to 120 of 120")
    assert browser.one("#next").get_property("disabled")
    assert browser.run("return document.activeElement.id") == "previous", "the keyboard does not lose its place"
    browser.click("#choose-all")
    browser.until(lambda: browser.text("#chosen-count") == "20 chosen")
    browser.click("#delete")
    browser.click("#sure-yes")
    browser.until(lambda: browser.text("#range") == "51 to 100 of 100"), "the last page that is left"
