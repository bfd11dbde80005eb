//! `/login`: a form that takes the token of `--http-token` and gives the browser a cookie.

use super::{caller, fields::Fields, response::refused, state::HttpState, tokens};
use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, get},
};
use p2pdi::status::Reason;

const FORM: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Token</title>\n\
    <link rel=\"stylesheet\" href=\"/page.css\">\n<form method=\"post\" action=\"/login\">\n\
    <label>Token of this peer <input name=\"token\" type=\"password\" autocomplete=\"current-password\" required></label>\n\
    <button>Log in</button>\n</form>\n";
/// The form may be sent to this server only, and load its style sheet only.
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> MethodRouter<HttpState> {
    get(form).post(log_in)
}

async fn form(State(state): State<HttpState>) -> Response {
    if !state.tokens.are_used() {
        return (StatusCode::NOT_FOUND, "this peer takes no token; start it with --http-token FILE\n").into_response();
    }
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)], FORM).into_response()
}

async fn log_in(State(state): State<HttpState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let logged_in = async {
        if caller::is_foreign(&parts) {
            return Err(Reason::LoopbackOnly.status("a page of another site cannot log in here"));
        }
        let fields = Fields::read(&parts, body, &["token"]).await?;
        let token = fields.required("token", "?token=…")?;
        caller::judge(state.tokens.given(token, caller::address(&parts), caller::now()))
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
