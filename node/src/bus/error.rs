//! Why a node can't use the bus.

/// An error of a Zenoh session or declaration.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {}", brief(source))]
pub struct BusError {
    pub(super) doing: String,
    pub(super) source: zenoh::Error,
}

/// Returns an error's text without the source positions that Zenoh appends.
fn brief(error: &zenoh::Error) -> String {
    let text = error.to_string();
    text.split(" at /").next().unwrap_or_default().to_owned()
}

impl BusError {
    pub(super) fn new(doing: impl Into<String>) -> impl FnOnce(zenoh::Error) -> Self {
        move |source| Self { doing: doing.into(), source }
    }
}
