"use strict";

// The token stands behind the '#': browsers send that to no server, and no log has it.
const token = decodeURIComponent(location.hash.slice(1));
const api = new URL("api/v1/auth/", new URL(".", location.href));
const sections = ["wait", "password", "invitation", "done", "failed"];

function show(name, title, text) {
  for (const one of sections) document.getElementById(one).hidden = one !== name;
  const section = document.getElementById(name);
  if (title) {
    section.querySelector("h1").textContent = title;
    section.querySelector("p").textContent = text;
  }
  section.querySelector("input")?.focus();
  return section;
}

async function call(path, body, access) {
  const headers = { "Content-Type": "application/json" };
  if (access) headers.Authorization = `Bearer ${access}`;
  let answer;
  try {
    answer = await fetch(new URL(path, api), {
      method: "POST", headers, body: JSON.stringify(body ?? {}), credentials: "omit", referrerPolicy: "no-referrer",
    });
  } catch {
    throw { code: "unreachable", detail: "The service cannot be reached. Try again in a moment." };
  }
  const text = await answer.text();
  const said = text ? JSON.parse(text) : {};
  if (!answer.ok) throw said;
  return said;
}

const WORDS = {
  link_invalid: "This link was used, has expired, or is for another email address.",
  password_refused: null,
  email_taken: "There is an account of that email address. Choose \u201cI have an account\u201d.",
  login_failed: "The email address or the password is wrong.",
  registration_closed: "Nobody can register here. Ask an administrator for an account.",
  member_exists: "You are a member already.",
  too_many_attempts: "Too many failed tries. Wait a little before the next one.",
};

function said(problem) {
  const words = WORDS[problem.code] ?? problem.detail ?? "Something went wrong. Try again in a moment.";
  return words.charAt(0).toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".");
}

function wire(section, submit) {
  const form = section.querySelector("form");
  const problem = form.querySelector(".problem");
  const button = form.querySelector(":scope > button");
  form.elements.show.addEventListener("change", () => {
    for (const name of ["password", "again"]) {
      if (form.elements[name]) form.elements[name].type = form.elements.show.checked ? "text" : "password";
    }
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    problem.hidden = true;
    button.disabled = true;
    try {
      await submit(form.elements);
      form.reset();
      history.replaceState(null, "", location.pathname);
    } catch (error) {
      problem.textContent = said(error);
      problem.hidden = false;
    } finally {
      button.disabled = false;
    }
  });
}

wire(document.getElementById("password"), async (fields) => {
  if (fields.password.value !== fields.again.value) throw { detail: "The two are not the same." };
  await call("password/reset", { token, password: fields.password.value });
  show("done", "Your password is set", "Sign in with it from now on. You can close this page.");
});

let mode = "register";
const invitation = document.getElementById("invitation");
for (const tab of invitation.querySelectorAll("[data-mode]")) {
  tab.addEventListener("click", () => {
    mode = tab.dataset.mode;
    for (const one of invitation.querySelectorAll("[data-mode]")) one.setAttribute("aria-selected", String(one === tab));
    for (const one of invitation.querySelectorAll("[data-only]")) one.hidden = one.dataset.only !== mode;
    invitation.querySelector("form > button").textContent = mode === "register" ? "Make my account" : "Accept the invitation";
    invitation.querySelector("[name=password]").autocomplete = mode === "register" ? "new-password" : "current-password";
    invitation.querySelector(".problem").hidden = true;
  });
}

wire(invitation, async (fields) => {
  const email = fields.email.value, password = fields.password.value;
  if (mode === "register") {
    await call("register", { email, password, name: fields.name.value, invitation: token });
    show("done", "Your account is ready", "Sign in with your email address and password. You can close this page.");
    return;
  }
  const tokens = await call("login", { email, password });
  try {
    await call("invitation", { token }, tokens.access_token);
  } finally {
    await call("logout", {}, tokens.access_token).catch(() => {});
  }
  show("done", "You are a member now", "The workspace is there the next time you sign in. You can close this page.");
});

(async () => {
  if (!token) {
    show("failed", "There is no link here", "Open the whole link that you were given: it ends with a # and a long word.");
    return;
  }
  try {
    const link = await call("link", { token });
    show(link.purpose === "password" ? "password" : "invitation");
  } catch (error) {
    if (error.code === "link_invalid") {
      show("failed", "This link is no longer good", "It was used, or it has expired. Ask whoever gave it to you for another.");
    } else {
      show("failed", "That did not work", said(error));
    }
  }
})();
