// An Express app with sessions of connect-dynamodb. It does not know the gateway. It prints its port, reads DynamoDB's URL from
// its input, and exits with the test.
"use strict";

const readline = require("node:readline");
const { DynamoDBClient } = require("@aws-sdk/client-dynamodb");
const express = require("express");
const session = require("express-session");
const passport = require("passport");
const DynamoDBStore = require("connect-dynamodb")(session);

passport.serializeUser((user, done) => done(null, user.name));
passport.deserializeUser((name, done) => done(null, { name }));

const app = express();
const server = app.listen(0, "127.0.0.1", () => console.log(server.address().port));
const input = readline.createInterface({ input: process.stdin });
input.on("close", () => process.exit(0));
input.once("line", (endpoint) => {
  const client = new DynamoDBClient({ endpoint });
  app.use(
    session({
      secret: "keyboard cat",
      store: new DynamoDBStore({ client }),
      resave: false,
      saveUninitialized: false,
      cookie: { maxAge: 3600000 },
    }),
  );
  app.use(passport.session());
  // Creates a session without a login.
  app.get("/app/visit", (request, response) => {
    request.session.cart = ["a book"];
    response.json({});
  });
  app.get("/app/show", (request, response) => {
    const { cookie, ...session } = request.session;
    response.json({ login: request.user?.name ?? null, session });
  });
  app.get("/app/id", (request, response) => response.json(request.sessionID));
  app.get("/app/login", (request, response, next) => {
    request.login({ name: request.query.name }, { keepSessionInfo: true }, (error) => {
      if (error) return next(error);
      request.session.user = { name: request.query.name, id: 42 };
      request.session.roles = ["admin", "staff"];
      response.json({});
    });
  });
  app.get("/app/forget", (request, response, next) => {
    // Logs out and keeps the session.
    request.logout({ keepSessionInfo: true }, (error) => (error ? next(error) : response.json({})));
  });
  app.get("/app/rename", (request, response) => {
    request.session.user.name = request.query.name;
    response.json({});
  });
  app.get("/app/count", (request, response) => {
    request.session.count = (request.session.count ?? 0) + 1;
    response.json({});
  });
  app.get("/app/logout", (request, response, next) => {
    request.session.destroy((error) => (error ? next(error) : response.json({})));
  });
});
