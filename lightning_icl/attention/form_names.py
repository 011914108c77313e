"""The names of momentum's forms and what each is, apart from their mathematics, which settings need not import."""

from typing import Literal, get_args

from lightning_icl.errors import UserError, did_you_mean

Form = Literal["sum", "mean", "previous"]
"""`sum` is Σ_{i<t} η^{t−i} v_i (Dai et al. 2023, section 5). `mean` divides it by its total weight, Σ_{j≥1} η^j or
η/(1 − η): that of an endless sequence, not of the tokens there are, so a constant for each head; values that stay the
same tend to themselves. `previous` is v_{t−1} alone, the limit of `mean` as η goes to 0: a short convolution and no
momentum."""


def check_form(form: str) -> Form:
    """Returns a form's name once it is known.

    Raises:
        UserError: there is no such form.
    """
    for name in get_args(Form):
        if form == name:
            return name
    raise UserError(f"Momentum has no form {form!r}. {did_you_mean(form, list(get_args(Form)))}")
