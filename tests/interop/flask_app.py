"""A Flask app with sessions of Flask-Session. It does not know the gateway."""

import boto3
import flask
import flask_login
import flask_session
import service

app = flask.Flask(__name__)
logins = flask_login.LoginManager(app)


class User(flask_login.UserMixin):
    def __init__(self, name):
        self.id = name


logins.user_loader(User)


@app.get("/app/show")
def show():
    user = flask_login.current_user
    # Flask-Session adds `_permanent`, also to a new session.
    session = {name: value for name, value in flask.session.items() if name != "_permanent"}
    return {"login": user.id if user.is_authenticated else None, "session": session}


@app.get("/app/visit")
def visit():
    """Creates a session without a login."""
    flask.session["cart"] = ["a book"]
    return show()


@app.get("/app/login")
def login():
    flask_login.login_user(User(flask.request.args["name"]))
    flask.session["user"] = {"name": flask.request.args["name"], "id": 42}
    flask.session["roles"] = ["admin", "staff"]
    return show()


@app.get("/app/rename")
def rename():
    flask.session["user"]["name"] = flask.request.args["name"]
    return show()


@app.get("/app/count")
def count():
    flask.session["count"] = flask.session.get("count", 0) + 1
    return show()


@app.get("/app/forget")
def forget():
    """Logs out and keeps the session."""
    flask_login.logout_user()
    return show()


@app.get("/app/logout")
def logout():
    flask.session.clear()
    return show()


def make_app(endpoint):
    app.config.update(
        SECRET_KEY="the flask app's secret key",
        SESSION_TYPE="dynamodb",
        SESSION_DYNAMODB=boto3.resource("dynamodb", endpoint_url=endpoint),
        SESSION_DYNAMODB_TABLE_EXISTS=True,
        SESSION_USE_SIGNER=True,
    )
    flask_session.Session(app)
    return app


if __name__ == "__main__":
    service.run(make_app)
