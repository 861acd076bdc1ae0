//! A configuration: texts in TOML, and variables over them.

use std::{
    ffi::OsString,
    fmt, fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

mod apply;
mod endpoint;
mod keys;
mod layer;
mod secret;

pub(crate) use endpoint::Endpoint;
use layer::Layer;

/// What the names of variables begin with: two underscores part it, and the words of a key, from each other. One alone
/// would take in what orchestrators set of themselves for a service called `headless`.
pub(crate) const PREFIX: &str = "HEADLESS__";

/// The variable that names the file of a configuration.
const FILE: &str = "HEADLESS__CONFIG";

/// The largest text, and the largest file of a secret.
const MOST_TEXT: u64 = 1024 * 1024;

/// What an operator sets without touching the code: texts in TOML, and variables.
///
/// A later text goes before an earlier one, and a variable before every text; a setting that the builder is given in code goes
/// before them all, but a store, a transport, a topic or a setting of a group may not be given in both. Nothing is read from the environment but by [`from_env`](Self::from_env). Nothing is refused here:
/// what is wrong is reported with everything else that is wrong, by [`Builder::check`](crate::Builder::check) and at
/// start-up.
///
/// ```
/// use headless::{Config, Headless};
///
/// # #[tokio::main]
/// # async fn main() -> headless::Result<()> {
/// let config = Config::new()
///     .with_text(
///         "orders.toml",
///         r#"
///         service = "orders"
///         store.url = "memory:orders"
///         transport.url = "memory:orders"
///         relay.batch = 50
///         "#,
///     )
///     .with_variables([("HEADLESS__RELAY__LEASE", "10 s")]);
/// let runtime = Headless::from_config(&config).start().await?;
/// let lease = runtime.explain().iter().find(|setting| setting.name == "relay.lease").expect("a setting");
/// assert_eq!(lease.to_string(), "relay.lease = 10 s (variable HEADLESS__RELAY__LEASE)");
/// # runtime.shutdown(std::time::Duration::from_secs(1)).await
/// # }
/// ```
///
/// Its `Debug` shows what it was read from, and no value: any of them may be a secret.
#[derive(Clone, Default)]
pub struct Config {
    texts: Vec<Layer>,
    variables: Layer,
    problems: Vec<String>,
}

impl Config {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From the environment of this process: as [`from_variables`](Self::from_variables) with its variables. The one
    /// place that looks at it.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_variables(std::env::vars_os())
    }

    /// The file that the variable `HEADLESS__CONFIG` names, if it is set, and these variables over it.
    #[must_use]
    pub fn from_variables<N, V>(variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let variables: Vec<(OsString, OsString)> = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let file = variables
            .iter()
            .find(|(name, _)| name == FILE)
            .map(|(_, path)| PathBuf::from(path));
        let config = match file {
            Some(path) => Self::new().with_file(path),
            None => Self::new(),
        };
        config.with_variables(variables)
    }

    /// With this text in TOML, at most 1 MiB. The name is what it is called in problems and in `explain`.
    #[must_use]
    pub fn with_text(mut self, name: impl Into<String>, text: &str) -> Self {
        let name: String = name.into();
        let name: Arc<str> = name.into();
        if u64::try_from(text.len()).is_ok_and(|bytes| bytes <= MOST_TEXT) {
            self.texts.push(Layer::of_toml(&name, text, &mut self.problems));
        } else {
            let bytes = text.len();
            self.problems
                .push(format!("{name} is {bytes} bytes, the limit is {MOST_TEXT}"));
        }
        self
    }

    /// With the text of this file, read now, on the thread of the caller.
    #[must_use]
    pub fn with_file(mut self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        match read(path) {
            Ok(text) => self.with_text(path.display().to_string(), &text),
            Err(problem) => {
                let shown = path.display();
                self.problems.push(format!("the configuration {shown} {problem}"));
                self
            }
        }
    }

    /// With those of these variables whose name begins with `HEADLESS__`: `HEADLESS__RELAY__BATCH` is `relay.batch`. A
    /// later one goes before an earlier one of the same name. `HEADLESS__CONFIG` is passed over: it is for
    /// [`from_variables`](Self::from_variables).
    #[must_use]
    pub fn with_variables<N, V>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        for (name, value) in variables {
            // A name that is no text is none of ours.
            let Ok(name) = name.into().into_string() else {
                continue;
            };
            if name == FILE {
                continue;
            }
            if let Some(words) = name.strip_prefix(PREFIX) {
                match value.into().into_string() {
                    Ok(value) => self.variables.add_variable(&name, words, value),
                    Err(_) => self.problems.push(format!("the variable {name} is no UTF-8")),
                }
            }
        }
        self
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("texts", &self.texts.iter().map(Layer::name).collect::<Vec<_>>())
            .field("variables", &self.variables.len())
            .field("problems", &self.problems.len())
            .finish()
    }
}

/// The text of a file, or what is wrong with it. Of what is no file of a disk nothing is read: a pipe may keep one waiting,
/// and a device has no end.
fn read(path: &Path) -> Result<String, String> {
    let cannot = |error: io::Error| format!("cannot be read: {error}");
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("is no regular file".to_owned());
    }
    let mut text = String::new();
    let file = fs::File::open(path).map_err(cannot)?;
    file.take(MOST_TEXT + 1)
        .read_to_string(&mut text)
        .map_err(cannot)?;
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes <= MOST_TEXT) {
        Ok(text)
    } else {
        Err(format!("has more than {MOST_TEXT} bytes, the limit"))
    }
}

#[cfg(feature = "memory")]
#[cfg(test)]
mod tests;
