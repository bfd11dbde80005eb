//! `/login`: a form that takes the token of `--http-token` and gives the browser a cookie.

use super::{Caller, Fields, HttpTokens, Origin, refused, tokens};
use crate::{platform::uptime, status::Reason};
use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use std::sync::Arc;

/// Longest form accepted: the longest token with every byte percent-encoded.
const FORM_MAX_BYTES: usize = 1_024;
const FORM: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Token</title>\n\
    <link rel=\"stylesheet\" href=\"/page.css\">\n<form method=\"post\" action=\"/login\">\n\
    <label>Token of this server <input name=\"token\" type=\"password\" autocomplete=\"current-password\" required></label>\n\
    <button>Log in</button>\n</form>\n";
/// The form may be sent to this server only, and load its style sheet only.
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

#[derive(Clone)]
struct Login {
    tokens: Arc<HttpTokens>,
    has_tls: bool,
}

/// The route `/login`. `has_tls`: browsers send the cookie over TLS only.
pub fn login(tokens: Arc<HttpTokens>, has_tls: bool) -> Router {
    Router::new().route("/login", get(form).post(log_in)).with_state(Login { tokens, has_tls })
}

async fn form(State(state): State<Login>) -> Response {
    if !state.tokens.are_used() {
        return (StatusCode::NOT_FOUND, "this server takes no token; start it with --http-token FILE\n").into_response();
    }
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)], FORM).into_response()
}

async fn log_in(State(state): State<Login>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let logged_in = async {
        if Origin::of(&parts) == Origin::Foreign {
            return Err(Reason::LoopbackOnly.status("a page of another site cannot log in here"));
        }
        let fields = Fields::read(&parts, body, &["token"], FORM_MAX_BYTES).await?;
        let token = fields.required("token", "?token=…")?;
        let address = Caller::of(&parts.extensions).map(|caller| caller.address().ip());
        state.tokens.given(token, address, uptime()).judge()
    };
    match logged_in.await {
        Ok(()) => {
            let cookie = format!(
                "{}={}; Max-Age={}; Path=/; HttpOnly; SameSite=Strict{}",
                tokens::COOKIE,
                state.tokens.cookie().unwrap_or_default(),
                tokens::COOKIE_LIFETIME.as_secs(),
                if state.has_tls { "; Secure" } else { "" }
            );
            (StatusCode::SEE_OTHER, [(header::LOCATION, "/".to_owned()), (header::SET_COOKIE, cookie)]).into_response()
        }
        Err(status) => refused(&status, &parts.headers),
    }
}
