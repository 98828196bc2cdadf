"""A Django app with its own users and Django's login. It does not know the gateway."""

import tempfile
import time
from pathlib import Path
from unittest import mock

import django
import service
from django.conf import settings
from django.http import JsonResponse
from django.urls import path

SECRET_KEY = "interop-secret-key-0123456789abcdefghijklmnopqrstuvwxyz"


def show(request):
    login = request.user.get_username() if request.user.is_authenticated else None
    return JsonResponse({"login": login, "session": dict(request.session)})


def visit(request):
    """Creates a session without a login."""
    request.session["cart"] = ["a book"]
    return show(request)


def login(request):
    from django.contrib.auth import get_user_model, login

    user, _ = get_user_model().objects.get_or_create(username=request.GET["name"])
    login(request, user)
    request.session["user"] = {"name": user.username, "id": 42}
    request.session["roles"] = ["admin", "staff"]
    return show(request)


def rename(request):
    request.session["user"]["name"] = request.GET["name"]
    request.session.modified = True
    return show(request)


def count(request):
    request.session["count"] = request.session.get("count", 0) + 1
    return show(request)


def expiry(request):
    request.session.set_expiry(int(request.GET["seconds"]))
    return show(request)


def age(request):
    """Saves the session as if that were this many seconds ago."""
    then = time.time() - int(request.GET["seconds"])
    with mock.patch("django.core.signing.time.time", return_value=then):
        request.session.save()
    return show(request)


def forget(request):
    """Logs out. Django cannot keep the session."""
    return logout(request)


def logout(request):
    from django.contrib.auth import logout

    logout(request)
    return show(request)


VIEWS = (show, visit, login, rename, count, expiry, age, forget, logout)
urlpatterns = [path(f"app/{view.__name__}", view) for view in VIEWS]


def make_app(endpoint):
    database = Path(tempfile.mkdtemp()) / "users.sqlite3"
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
        DYNAMODB_ENDPOINT=endpoint,
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        ROOT_URLCONF=__name__,
        SECRET_KEY=SECRET_KEY,
        SESSION_ENGINE="django_sessions",
        USE_TZ=True,
    )
    django.setup()
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application

    call_command("migrate", verbosity=0)
    return get_wsgi_application()


if __name__ == "__main__":
    service.run(make_app)
