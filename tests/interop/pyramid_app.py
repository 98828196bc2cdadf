"""A Pyramid app with sessions of pyramid-dynamodb-sessions. It does not know the gateway."""

import boto3
import service
from pyramid.authentication import SessionAuthenticationHelper
from pyramid.config import Configurator
from pyramid_dynamodb_sessions import DynamoDBSessionFactory


authentication = SessionAuthenticationHelper()


def show(request):
    return {"login": authentication.authenticated_userid(request), "session": dict(request.session)}


def visit(request):
    """Creates a session without a login."""
    request.session["cart"] = ["a book"]
    return show(request)


def login(request):
    authentication.remember(request, request.params["name"])
    request.session["user"] = {"name": request.params["name"], "id": 42}
    request.session["roles"] = ["admin", "staff"]
    return show(request)


def count(request):
    request.session["count"] = request.session.get("count", 0) + 1
    return show(request)


def rename(request):
    request.session["user"]["name"] = request.params["name"]
    request.session.changed()
    return show(request)


def flash(request):
    request.session.flash(request.params["text"])
    return show(request)


def flashed(request):
    return request.session.pop_flash()


def csrf(request):
    return {"token": request.session.new_csrf_token(), "kept": request.session.get_csrf_token()}


def token(request):
    return request.session.get_csrf_token()


def forget(request):
    """Logs out and keeps the session."""
    authentication.forget(request)
    return show(request)


def logout(request):
    request.session.invalidate()
    return show(request)


def make_app(endpoint):
    table = boto3.resource("dynamodb", endpoint_url=endpoint).Table("sessions")
    with Configurator(session_factory=DynamoDBSessionFactory(table)) as config:
        for view in (show, visit, login, forget, count, rename, flash, flashed, csrf, token, logout):
            config.add_route(view.__name__, f"/app/{view.__name__}")
            config.add_view(view, route_name=view.__name__, renderer="json")
        return config.make_wsgi_app()


if __name__ == "__main__":
    service.run(make_app)
