//! The flags that each provider must have on: a page that a test holds.

use headless_abstractions::TransportCapabilities;

use crate::{
    case::{Case, CaseResult, Flag, ensure_eq, fail},
    cx::Cx,
    fixture::TransportFixture,
    run::{Outcome, run_case},
};

/// Compares a provider's run-time flags with its section of the page.
pub(crate) fn compare<F: TransportFixture>(provider: &'static str, page: &'static str) -> Outcome {
    let case = Case::new(
        "should_equal_the_table",
        "run-time flags are the documented ones",
        |cx| Box::pin(show(cx)),
    );
    run_case::<F, Compared<F>>(&case, |inner| Compared {
        inner,
        provider,
        page,
    })
    .outcome
}

async fn show<F: TransportFixture>(cx: &Cx<Compared<F>>) -> CaseResult {
    let Compared {
        inner,
        provider,
        page,
    } = cx.fixture();
    let info = inner.node().await?.driver.info();
    ensure_eq!(info.name, *provider, "the provider's name");
    differences(provider, page, &info.capabilities)
}

/// The page's rows are `| flag | yes |` under a heading with the provider's name.
fn differences(provider: &str, page: &str, flags: &TransportCapabilities) -> CaseResult {
    let heading = format!("## {provider}");
    let section: Vec<&str> = page
        .lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .collect();
    if section.is_empty() {
        fail!("the page has no section {heading:?}");
    }
    for flag in Flag::ALL {
        let row = format!("| `{}` |", flag.name);
        let on = if (flag.on)(flags) { "yes" } else { "no" };
        let Some(line) = section.iter().find(|line| line.starts_with(&row)) else {
            fail!(
                "the page's section {heading:?} has no row for `{}`, which is {on:?}",
                flag.name
            );
        };
        let said = line
            .trim_start_matches(&row)
            .split('|')
            .next()
            .unwrap_or_default()
            .trim();
        ensure_eq!(on, said, "`{}` at run time and on the page", flag.name);
    }
    Ok(())
}

/// A fixture with the page that it is held against.
#[derive(Debug)]
struct Compared<F> {
    inner: F,
    provider: &'static str,
    page: &'static str,
}

#[async_trait::async_trait]
impl<F: TransportFixture> crate::Fixture for Compared<F> {
    const VIRTUAL_TIME: bool = F::VIRTUAL_TIME;

    /// Only ever wrapped around an open fixture.
    async fn open(_: crate::Namespace) -> Result<Self, crate::Unavailable> {
        Err(crate::Unavailable::Broken("nothing to compare with".to_owned()))
    }

    fn version(&self) -> String {
        self.inner.version()
    }

    async fn drop_namespace(self) -> headless_abstractions::Result<()> {
        self.inner.drop_namespace().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(change: &str) -> String {
        let mut page = "# Capabilities\n\n## other\n\n## memory\n\n| flag | on |\n| --- | --- |\n".to_owned();
        for flag in Flag::ALL {
            let on = if flag.name == change { "yes" } else { "no" };
            page.push_str(&format!("| `{}` | {on} | a note |\n", flag.name));
        }
        page
    }

    #[test]
    fn should_pass_when_every_row_agrees() {
        differences("memory", &page(""), &TransportCapabilities::none()).unwrap();
        let extend = TransportCapabilities::none().with_extend(true);
        differences("memory", &page("extend"), &extend).unwrap();
    }

    #[test]
    fn should_fail_when_a_row_differs_or_is_missing() {
        for flag in Flag::ALL {
            assert!(differences("memory", &page(flag.name), &TransportCapabilities::none()).is_err());
            let missing = page("").replace(&format!("| `{}` ", flag.name), "| ");
            assert!(differences("memory", &missing, &TransportCapabilities::none()).is_err());
        }
        assert!(differences("nats", &page(""), &TransportCapabilities::none()).is_err());
    }
}
