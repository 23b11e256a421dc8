"""A secret is masked in every form in which it travels."""

from __future__ import annotations

import base64
import html
import json
import shlex
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.common.secrets import MASK, Masks, SecretTooShort

SECRET = "p@ss/w0rd +\"'é\\"


@pytest.fixture
def masks() -> Masks:
    found = Masks()
    found.add(SECRET)
    return found


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        quote_plus(SECRET),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(SECRET))[3:-3],
        repr(SECRET)[1:-1],
        ascii(SECRET)[1:-1],
        repr(SECRET.encode())[2:-1],
        shlex.quote(SECRET),
        html.escape(SECRET),
        SECRET.replace("'", "''"),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        SECRET.encode().hex(":"),
        "".join(f"%{byte:02x}" for byte in SECRET.encode()),
        "".join(f"\\x{byte:02X}" for byte in SECRET.encode()),
        "".join(f"\\{byte:03o}" for byte in SECRET.encode()),
        "".join(f"\\u{ord(sign):04x}" for sign in SECRET),
        "".join(f"&#{ord(sign)};" for sign in SECRET),
        base64.b64encode(SECRET.encode("utf-16-le")).decode(),
        base64.b32encode(SECRET.encode()).decode().rstrip("="),
    ],
)
def test_each_form_is_masked(masks, form):
    """F: K01. A password in argv or a DSN ends up in logs, quoted by whoever wrote them."""
    assert masks.mask(f"before {form} after") == "before *** after"


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "user:"])
@pytest.mark.parametrize("after", ["", "x", "xy", "xyz"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_secret_inside_longer_base64_is_masked(before, after, encode):
    masks = Masks()
    masks.add("s3cr>t?word")
    encoded = encode(f"{before}s3cr>t?word{after}".encode()).decode()
    masked = masks.mask(f"Authorization: Basic {encoded}")
    assert MASK in masked
    assert len(masked) < len(f"Authorization: Basic {encoded}")
    for left in masked.removeprefix("Authorization: Basic ").split(MASK):
        assert len(left.strip("=")) <= len(before + after) * 4 // 3 + 1


def test_url_with_the_secret_is_masked(masks):
    url = f"postgresql://dba:{quote(SECRET, safe='')}@db/app?{urlencode({'password': SECRET})}"
    assert masks.mask(url) == "postgresql://dba:***@db/app?password=***"


def test_longest_secret_goes_first():
    masks = Masks()
    masks.add("secret")
    masks.add("secret-and-more")
    assert masks.mask("secret-and-more, secret-and") == "***, ***-and"


@pytest.mark.parametrize("secret", ["", "a", "12345"])
def test_short_secret_is_refused(secret):
    masks = Masks()
    with pytest.raises(SecretTooShort) as caught:
        masks.add(secret)
    assert str(caught.value) == (
        f"cannot mask a secret of {len(secret)} characters: it needs at least 6; choose a longer one"
    )
    assert masks.mask("a 12345") == "a 12345"


def test_secret_read_with_its_newline_is_masked_without():
    masks = Masks()
    masks.add("secret1\n")
    assert masks.mask("is secret1.") == "is ***."


def test_without_secrets_nothing_changes():
    assert Masks().mask("text") == "text"
    assert Masks().mask_data({"a": [1, None]}) == {"a": [1, None]}


def test_data_is_masked_in_depth():
    masks = Masks()
    masks.add("secret")
    masks.add("123456")
    data = {"secret": 1, "a": ["x secret", {"b": "secret"}, None, True, 5], "n": 123456, "f": 0.123456, "Xsecret": 2}
    assert masks.mask_data(data) == {
        "***": 1, "a": ["x ***", {"b": "***"}, None, True, 5], "n": "***", "f": "***", "X***": 2,
    }  # fmt: skip


def test_keys_that_become_equal_are_both_kept():
    masks = Masks()
    masks.add("secret-1")
    masks.add("secret-2")
    assert masks.mask_data({"secret-1": 1, "secret-2": 2}) == {"***": 1, "***'": 2}


ANY = st.text(min_size=6, max_size=30).filter(lambda secret: "*" not in secret)


@given(secret=ANY, before=st.text(max_size=5), after=st.text(max_size=5))
def test_no_written_form_holds_the_secret(secret, before, after):
    masks = Masks()
    masks.add(secret)
    text = f"{before}{secret}{after}"
    for written in (text, json.dumps(text), repr(text)):
        assert secret not in masks.mask(written)
        assert MASK in masks.mask(written)
    whole = {"a": [text], text: None}
    assert secret not in str(masks.mask_data(whole))


@given(secret=ANY, before=st.binary(max_size=4), after=st.binary(max_size=4))
def test_no_base64_holds_the_secret(secret, before, after):
    masks = Masks()
    raw = secret.encode(errors="surrogatepass")
    masks.add(secret)
    assert MASK in masks.mask(base64.b64encode(before + raw + after).decode())
