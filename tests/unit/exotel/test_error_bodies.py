"""What error bodies say, in the vendor's forms and in those of gateways."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.errors import BadBody, ErrorInside
from exophone_exporter.exotel.error_bodies import is_html, vendor_message
from exophone_exporter.exotel.model import parse_number, parse_page
from tests.lib.support import INDIA


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ('{"RestException": {"Status": 401, "Message": "who?", "Code": 20003}}', 401, "who?"),
        ('{"RESTEXCEPTION": {"status": "404"}}', 404, ""),
        ('{"rest_exception": {"Status": "404 Not Found"}}', 404, ""),
        ('{"RestException": {"Code": 402.0}}', 402, ""),
        ('{"RestException": {"Code": 20404, "Message": "no\\nmore"}, "sid": "a"}', None, "no more"),
        ('{"http_code": 409, "response": {"error_data": {"description": "busy"}}}', 409, "busy"),
        ('{"http_code": "429", "response": {"code": 1010}}', 429, "1010"),
        ('{"http_code": 200, "response": {"code": 402, "status": "failure"}}', 402, "402"),
        ('{"Http_Code": 200, "Response": [{"Code": "503", "Status": "Failure"}]}', 503, "503"),
        ('{"response": {"code": 402}, "incoming_phone_numbers": [{}], "sid": "a"}', 402, "402"),
        ('{"response": [{"status": "failed"}], "incoming_phone_numbers": [{}]}', None, ""),
        ('{"response": {"status": "failure", "error_data": {"code": 404}}}', 404, "404"),
        ('{"http_code": 202, "incoming_phone_numbers": [{}], "sid": "a"}', 202, "202"),
        ('{"http_code": 999, "incoming_phone_numbers": []}', None, "999"),
        ('{"status": "failure", "incoming_phone_numbers": [{}]}', None, ""),
        ('{"status": "error", "incoming_phone_numbers": []}', None, ""),
        ('{"status": 404, "incoming_phone_numbers": []}', 404, ""),
        ('{"error": {"code": 401, "message": "who?"}}', 401, "who?"),
        ('{"error": "who?", "incoming_phone_numbers": []}', None, "who?"),
        ('{"errors": [{"status": "403", "detail": "no"}]}', 403, "no"),
        ('{"error": ' * 5 + '{"code": 404, "message": "deep"}' + "}" * 5, 404, "deep"),
        ('{"error": ' * 6 + '{"code": 404, "message": "deep"}' + "}" * 6, None, ""),
        ('{"errors": [[[[["deep"]]]]]}', None, "deep"),
        ('{"errors": [[[[[["deep"]]]]]]}', None, ""),
        ('{"error": "' + "x" * 5000 + '"}', None, "x" * 4095 + "…"),
        ('{"message": "API rate limit exceeded"}', None, "API rate limit exceeded"),
        ("<RestException><Status> 401 </Status><Message>a &amp; b</Message>", 401, "a & b"),
        ("<?xml version='1.0'?><r><http_code>200</http_code><e:Code>404</e:Code></r>", 404, ""),
        ("<RestException/>", None, ""),
    ],
    ids=itertools.count(),
)
@pytest.mark.fault(20)
def test_error_inside_a_200_is_found_with_its_code_and_words(
    body: str, code: int | None, words: str
) -> None:
    """Above all it is not an account that has lost all of its numbers."""
    for parse in (parse_page, parse_number):
        with pytest.raises(ErrorInside) as caught:
            parse(body.encode(), INDIA)
        assert (caught.value.code, caught.value.words) == (code, words)
        said = f"the API answered 200 with an error inside: {words or 'without a message'}"
        assert str(caught.value) == said


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"http_code": 200, "status": "success"}, id="code-200"),
        pytest.param({"http_code": "200 OK", "response": {"code": 200}}, id="texts"),
        pytest.param({"error": None, "errors": [], "RestException": None}, id="no-error"),
        pytest.param({"message": "ok", "status": "active", "code": "x"}, id="more-fields"),
    ],
)
@pytest.mark.fault(20)
def test_answer_that_says_it_is_good_is_read(more: dict[str, object]) -> None:
    """With numbers and without."""
    for items in ([], [{"sid": "a", "status": 404, "error": "no"}]):
        body = json.dumps({"incoming_phone_numbers": items} | more)
        assert parse_page(body.encode(), INDIA).items == len(items)
    assert parse_number(json.dumps({"sid": "a"} | more).encode(), INDIA).sid == "a"


@pytest.mark.fault(20)
def test_numbers_count_before_a_code_that_nothing_marks_as_an_error() -> None:
    page = parse_page(b'{"code": 404, "incoming_phone_numbers": [{"sid": "a"}]}', INDIA)
    assert page.items == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<html><Status>404</Status><title>RestException</title></html>", id="html"),
        pytest.param(b"<a><Status>200</Status></a>", id="xml-without-an-error"),
    ],
)
@pytest.mark.fault(19)
def test_markup_that_is_no_error_is_a_bad_body(body: bytes) -> None:
    with pytest.raises(BadBody):
        parse_page(body, INDIA)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(
            b'{"http_code": 403, "response": {"code": 403, "error_data": {"code": 1010,'
            b' "message": "Forbidden", "description": "KYC is missing"}}}',
            "KYC is missing",
            id="description-says-more-than-the-message",
        ),
        pytest.param(b'{"response": {"code": 7, "error_data": null}}', "7", id="inner-code"),
        pytest.param(b'{"http_code": 403, "response": {}}', "403", id="outer-code"),
        pytest.param(b'{"response": {}}', "", id="response-that-says-nothing"),
        pytest.param(b'{"RestException": {"Message": null}}', "", id="null-is-not-none"),
        pytest.param(b'{"RestException": {"Message": ["a"]}}', "a", id="message-is-a-list"),
        pytest.param(b'{"RestException": {"Message": true}}', "", id="message-is-a-boolean"),
        pytest.param(b'{"RestException": "no"}', "no", id="exception-is-a-string"),
        pytest.param(b"[]", "", id="list"),
        pytest.param(b"<html><h1>502 Bad Gateway</h1></html>", "502 Bad Gateway", id="html"),
        pytest.param(b"<!DOCTYPE html><title>Go\n away</title><h1>x</h1>", "Go away", id="title"),
        pytest.param(b"<html><body>hello</body></html>", "", id="html-without-a-title"),
        pytest.param(b"Too Many Requests\n", "Too Many Requests", id="plain-text"),
        pytest.param(b'"not now"', "not now", id="json-text"),
        pytest.param(
            b'\xef\xbb\xbf{"MESSAGE": "Don&#39;t \\u0026 \\"x\\""}', 'Don\'t & "x"', id="escapes"
        ),
        pytest.param(b'{"data": [{"errors": [{"Detail": "deep"}]}]}', "deep", id="nested"),
        pytest.param(b'{"message": "null", "reason": "busy"}', "busy", id="null-as-text"),
        pytest.param(b'{"message": "cut \\"q\\"", "x": [1,', 'cut "q"', id="json-that-was-cut"),
        pytest.param(b'{"reason": "a\tb"}', "a b", id="tab-in-json"),
        pytest.param(b'{"message": "a\tb", "x": [1,', "a b", id="tab-in-json-that-was-cut"),
        pytest.param(b'{"x": [1,', "", id="cut-without-words"),
        pytest.param(
            b'{"RestException": {"Message": "You\\\'re a\\\\b"}}', "You're a\\b", id="bad-escape"
        ),
        pytest.param(b'{"message": "\\uZZZZ"', "", id="bad-escape-of-unicode"),
        pytest.param(b"<Message><![CDATA[a & <b> &amp;]]></Message>", "a & <b> &amp;", id="cdata"),
        pytest.param(b'<e:message lang="en">a &lt;b&gt;</e:message>', "a <b>", id="entities"),
        pytest.param(b"<Message>is <b>suspended</b></Message>", "is suspended", id="tags"),
        pytest.param(b"<Message>a</Msg>", "", id="never-closed"),
        pytest.param(b"", "", id="empty"),
        pytest.param(b"[" * 100_000, "", id="nested"),
        pytest.param(b"9" * 5000, "", id="huge-integer"),
        pytest.param(b"<Message>a <b> c</Message>", "a <b> c", id="markup"),
        pytest.param(b"<Message>a</Message><Message>b</Message>", "a", id="the-first"),
        pytest.param(b"<Message>a\nb\xff</Message>", "a b\ufffd", id="unfit-characters"),
        pytest.param(b"x" * 9000, "x" * 4096, id="too-long"),
    ],
)
def test_words_of_an_error_are_read_as_a_person_reads_them(body: bytes, said: str) -> None:
    assert vendor_message(body) == said


@given(st.from_regex(rb'\{"message": "(\\\\[ -~]|u[0-9a-f]|[ -!#-~])*"?', fullmatch=True))
def test_any_escape_in_an_error_is_read_or_left_out(body: bytes) -> None:
    assert isinstance(vendor_message(body), str)


@pytest.mark.parametrize(
    ("body", "html"),
    [
        pytest.param(b"\n<!DOCTYPE HTML>\n<p>", True, id="doctype"),
        pytest.param(b"<HTML lang='en'>", True, id="element"),
        pytest.param(b"<RestException/>", False, id="xml"),
        pytest.param(b'{"message": "<html>"}', False, id="json"),
    ],
)
def test_page_for_a_browser_is_told_from_the_apis_own_errors(*, body: bytes, html: bool) -> None:
    assert is_html(body) is html
