"""What every test of the page does."""

from playwright.sync_api import Page, expect


def ask(page: Page, text: str, *, wait: bool = True) -> None:
    """Write it and press Enter; by default until the answer has ended."""
    page.locator("#prompt").fill(text)
    expect(page.locator("#send")).to_be_enabled()
    page.keyboard.press("Enter")
    if wait:
        expect(page.locator("#stop")).to_be_hidden()
        expect(page.locator(".answer.running")).to_have_count(0)


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def setting(page: Page, label: str, value: str) -> None:
    field = page.get_by_label(label, exact=True)
    field.fill(value)
    field.blur()
