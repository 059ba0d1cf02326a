"""A handler and the arguments that it takes.

Python's `inspect` takes a tenth of a start to import, with tokenize and dis behind it: a plain function says by itself what it
takes. Only what is no plain function, and the message for what does not fit, need more.
"""

from types import FunctionType

VARARGS, VARKEYWORDS = 0x04, 0x08


class Target:
    def __init__(self, function):
        self.function = function
        plain = type(function) is FunctionType and not hasattr(function, "__wrapped__")
        self._code = function.__code__ if plain else None
        self._signature = None if plain else signature_of(function)
        self.takes_request = self._names() == ["request"]

    def check(self, args, kwargs):
        """None, or what is wrong with them: `handler(name): missing a required argument: 'name'`."""
        if self._code is not None:
            if self._fits(args, kwargs):
                return None
            self._signature = self._signature or signature_of(self.function)
        if self._signature is None:
            return None
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            return "%s%s: %s" % (getattr(self.function, "__name__", "the handler"), self._signature, error)
        return None

    def _names(self):
        """Of its parameters, where each can be given by position and there is no other."""
        code = self._code
        if code is not None:
            more = code.co_kwonlyargcount or code.co_flags & (VARARGS | VARKEYWORDS)
            return None if more else list(code.co_varnames[: code.co_argcount])
        if self._signature is None:
            return None
        parameters = self._signature.parameters.values()
        positional = all(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
        return [p.name for p in parameters] if positional else None

    def _fits(self, args, kwargs):
        code = self._code
        count, only_by_position = code.co_argcount, code.co_posonlyargcount
        names = code.co_varnames[:count]
        by_name = code.co_varnames[count : count + code.co_kwonlyargcount]
        if len(args) > count and not code.co_flags & VARARGS:
            return False
        free = names[max(len(args), only_by_position) :]
        for name in kwargs:
            if name not in free and name not in by_name:
                if not code.co_flags & VARKEYWORDS or name in names[only_by_position : len(args)]:
                    return False
        needed = count - len(self.function.__defaults__ or ())
        defaults = self.function.__kwdefaults__ or {}
        return all(
            name in kwargs and at >= only_by_position
            for at, name in enumerate(names[:needed])
            if at >= len(args)
        ) and all(name in kwargs or name in defaults for name in by_name)


def signature_of(function):
    """None for what does not say, as some of C."""
    import inspect

    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None
