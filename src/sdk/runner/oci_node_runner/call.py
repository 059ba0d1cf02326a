"""From a request to the arguments of a handler."""

import json

from .wire import BadRequest

#: What `handler.remote(…)` sends: positional and named arguments.
CALL_TYPE = "application/vnd.oci-node.call+json"
FORM_TYPE = "application/x-www-form-urlencoded"


def arguments_of(target, request):
    """Positional and named arguments. Raises BadRequest, which says what the handler wants."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == CALL_TYPE:
        args, kwargs = call_of(request.body)
    elif target.takes_request:
        return (request,), {}
    else:
        args, kwargs = (), named(request, content_type)
    wrong = target.check(args, kwargs)
    if wrong is not None:
        raise BadRequest(400, wrong)
    return args, kwargs


def call_of(body):
    call = parse_json(body)
    args = call.get("args", []) if isinstance(call, dict) else None
    kwargs = call.get("kwargs", {}) if isinstance(call, dict) else None
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise BadRequest(400, 'a call is {"args": […], "kwargs": {…}}')
    return args, kwargs


def named(request, content_type):
    """Query parameters and the members of a JSON object, by name."""
    arguments = form(request.query_string) if request.query_string else {}
    body = request.body
    if not body:
        return arguments
    # `curl -d '{…}'` calls JSON a form unless it is told otherwise.
    if content_type == FORM_TYPE and not body.lstrip()[:1] == b"{":
        more = form(body.decode("latin-1"))
    elif content_type in ("", FORM_TYPE, "application/json", "text/json") or content_type.endswith("+json"):
        more = parse_json(body)
        if not isinstance(more, dict):
            raise BadRequest(400, "the body must be a JSON object: its members are the handler's arguments")
    else:
        raise BadRequest(
            415,
            "the body is %s: send a JSON object as application/json, or write a handler with one parameter "
            "named `request`, which is given the body as it is" % content_type[:80],
        )
    twice = sorted(arguments.keys() & more.keys())
    if twice:
        raise BadRequest(400, "%s stands both in the query and in the body" % ", ".join(twice)[:200])
    arguments.update(more)
    return arguments


def form(text):
    """A name that is there more than once has a list."""
    from urllib.parse import parse_qs

    try:
        values = parse_qs(text, keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        raise BadRequest(400, "there are more than 1000 parameters") from None
    return {name: found[0] if len(found) == 1 else found for name, found in values.items()}


def parse_json(body):
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(400, "the body is no JSON: %s" % str(error)[:200]) from None
