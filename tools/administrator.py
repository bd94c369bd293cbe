"""The administrator of a Keycloak of our own, whose password a running server keeps to itself.

No `up` changes it there: Keycloak takes the one of its Secret when it makes its database, and never
again.
"""

from keycloak import KeycloakAdmin
from keycloak.exceptions import KeycloakAuthenticationError, KeycloakPostError

NAME = "admin"


def hand_over(url: str, old: str, new: str) -> None:
    """The password is `new` from here on, whichever of the two it was. Raises KeycloakError:
    KeycloakAuthenticationError where it was neither."""
    try:
        admin, account = _login(url, old)
    except KeycloakAuthenticationError:
        _login(url, new)
        return
    admin.set_user_password(account, new, temporary=False)


def _login(url: str, password: str) -> tuple[KeycloakAdmin, str]:
    """And the account's id there, since the library logs in with the first question."""
    admin = KeycloakAdmin(
        server_url=url, username=NAME, password=password,
        realm_name="master", client_id="admin-cli",
    )  # fmt: skip
    try:
        return admin, str(admin.get_user_id(NAME))
    except KeycloakPostError as error:
        # RFC 6749, 5.2, has 400 for a wrong password; the library knows 401 alone.
        if error.response_code == 400 and b"invalid_grant" in (error.response_body or b""):
            raise KeycloakAuthenticationError(
                "refused", response_code=400, response_body=error.response_body
            ) from None
        raise
