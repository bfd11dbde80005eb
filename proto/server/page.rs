//! What the status pages of both servers share: style sheet, script, icon, and their content security policy.

use axum::{
    Router,
    http::{HeaderName, header},
    response::{IntoResponse as _, Response},
    routing::get,
};

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/dom.js");
const ICON: &str = include_str!("page/icon.svg");

/// Content security policy of a page: it loads its own server's files only, and no text may become markup or code (`trusted-types`).
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Routes of the shared files: `/page.css`, `/dom.js`, `/icon.svg`.
pub fn files() -> Router {
    Router::new()
        .route("/page.css", get(|| async { file("text/css; charset=utf-8", STYLE) }))
        .route("/dom.js", get(|| async { file("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/icon.svg", get(|| async { file("image/svg+xml", ICON) }))
}

/// A page: `template` with `{{name}}` and `{{text}}` filled in. `text` is what is shown where scripts are off.
pub fn html(template: &str, name: &str, text: &str) -> Response {
    let page = template.replacen("{{name}}", &escaped(name), 1).replacen("{{text}}", &escaped(text), 1);
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)], page).into_response()
}

/// A file of a page. Browsers revalidate it with each page, so that a file of an older version is never used.
pub fn file(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (HeaderName::from_static("cache-control"), "no-cache")], text).into_response()
}

/// `text` as HTML text outside of tags.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            c => escaped.push(c),
        }
    }
    escaped
}
