"""All that the manifest of the npm package says of an element, asked of the element itself."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from playwright.async_api import Page, expect

from tests.browser.look import bar, part, shows
from tests.browser.serving import Site
from tests.conftest import Until
from tests.packaged import FOLDER

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.asyncio(loop_scope="session"),
]

DECLARED: Final = json.loads((FOLDER / "custom-elements.json").read_text())["modules"][0]
ELEMENTS: Final[dict[str, dict[str, Any]]] = {
    one["tagName"]: one for one in DECLARED["declarations"] if "tagName" in one
}
READ: Final = """
window.read = {};
for (const name of ["getAttribute", "hasAttribute"]) {
  const original = Element.prototype[name];
  Element.prototype[name] = function (attribute) {
    (read[this.localName] ??= new Set(this.constructor.observedAttributes)).add(attribute);
    return original.call(this, attribute);
  };
}"""
HEARD: Final = """names => {
  window.heard = new Set();
  for (const name of names) addEventListener(name, () => heard.add(name), true);
}"""
PARTS: Final = """element => {
  const of = (node) => (node.getAttribute("exportparts") ?? "").split(",");
  const nodes = [...element.shadowRoot.querySelectorAll("[part], [exportparts]")];
  return nodes.flatMap((node) => [...node.part, ...of(node).map((one) => one.split(":").pop())]);
}"""
STAGES: Final = [{"name": f"Part {n}", "total": 2, "to": 1, "unit": "row"} for n in range(5)]


def names(tag: str, kind: str) -> set[str]:
    return {one["name"] for one in ELEMENTS[tag].get(kind, [])}


async def parts(page: Page, tag: str) -> set[str]:
    """The parts that can be styled from outside of the first element of this kind."""
    found = await page.locator(tag).first.evaluate(PARTS)
    return set(found) - {""}


async def open_all(page: Page, site: Site, name: str) -> str:
    """A page with a bar that has stages, a log and a button to notify, and with a list."""
    await page.add_init_script(READ)
    site.tell(name, total=2, to=1, stages=STAGES, log=["a line"])
    job_id = await site.begin(page, name)
    markup = f'<headway-bar src="/jobs/{job_id}" log outside="notify"></headway-bar>'
    await site.bare(page, f"{markup}<headway-jobs log></headway-jobs>")
    await shows(bar(page), "running")
    await expect(part(bar(page), "stage").first).to_be_visible()
    await part(bar(page), "log-toggle").click()
    await expect(part(bar(page), "log")).to_contain_text("a line")
    await expect(page.locator("headway-jobs headway-bar")).to_have_count(1)
    return job_id


async def test_parts_slots_and_members_are_there(page: Page, site: Site, name: str) -> None:
    """Each part can be styled, each slot filled, each member used; and none is forgotten."""
    await open_all(page, site, name)

    for tag in ELEMENTS:
        members = await page.locator(tag).first.evaluate(
            "(element, names) => names.map(name => [name, typeof element[name], name in element])",
            sorted(names(tag, "members")),
        )
        methods = {one["name"] for one in ELEMENTS[tag]["members"] if one["kind"] == "method"}
        slots = await page.locator(tag).first.evaluate(
            "element => [...element.shadowRoot.querySelectorAll('slot')].map(({ name }) => name)"
        )
        assert all(there for _, _, there in members)
        assert {name for name, kind, _ in members if kind == "function"} == methods
        assert set(slots) == names(tag, "slots")
        assert await parts(page, tag) == names(tag, "cssParts")


async def test_attributes_are_read(page: Page, site: Site, name: str) -> None:
    """Each attribute is one that the element looks at."""
    await open_all(page, site, name)

    for tag in ELEMENTS:
        read = set(await page.evaluate("tag => [...read[tag]]", tag))
        assert names(tag, "attributes") <= read


async def test_custom_properties_are_used(page: Page, site: Site, name: str, until: Until) -> None:
    """Each stands in the styles of a bar or of a ring."""
    site.tell(name, total=2, to=1)
    await site.watch(page, await site.begin(page, name), variant="ring")
    await shows(bar(page), "running")
    sheets = "document.querySelector('headway-bar').shadowRoot.adoptedStyleSheets.length == 2"
    await until(lambda: page.evaluate(sheets), "the ring has its styles")

    css = await bar(page).evaluate(
        """bar => bar.shadowRoot.adoptedStyleSheets
          .flatMap((sheet) => [...sheet.cssRules].map((rule) => rule.cssText)).join()"""
    )

    assert {
        one for one in names("headway-bar", "cssProperties") if f"var({one}" not in css
    } == set()


async def test_events_are_fired(page: Page, site: Site, name: str) -> None:
    """In the lives of three jobs each event comes once at least."""
    ends = ["succeeds", "fails", "stops"]
    jobs = []
    for end in ends:
        site.tell(f"{name}{end}", total=2, to=1)
        jobs.append(await site.begin(page, f"{name}{end}"))
    listen = f"({HEARD})({json.dumps(sorted(names('headway-bar', 'events')))})"
    await page.add_init_script(listen)  # before the bars connect, which is an event too
    await site.watch(page, *jobs)
    for number in range(3):
        await shows(bar(page, number), "running")

    site.tell(f"{name}succeeds", end=True)
    site.tell(f"{name}fails", fail="Row 7")
    await part(bar(page, 2), "cancel").click()
    await shows(bar(page, 1), "failed")
    site.tell(f"{name}fails", end=True)
    await part(bar(page, 1), "retry").click()

    for number, state in enumerate(["succeeded", "succeeded", "cancelled"]):
        await shows(bar(page, number), state)
    assert set(await page.evaluate("[...heard]")) == names("headway-bar", "events")
