//! Where the servers are that the suites run against.
//!
//! A service is found by its variable, such as `HEADLESS_TEST_POSTGRES_URL`, or else on its usual local port. Without
//! either its cases are ignored with that reason, unless `HEADLESS_REQUIRE_SERVICES` names it: then they fail.
//!
//! Whoever restarts, stops, pauses or starves a server never does it to a shared one, but to one of their own:
//! `private_postgres` and its like start it from the machine's binaries, on Unix systems.

use std::{
    collections::BTreeSet,
    env,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use crate::Unavailable;

#[cfg(unix)]
mod private;
mod rabbitmq;

pub use rabbitmq::rabbitmq_version;

#[cfg(unix)]
pub use private::{
    PrivatePgbouncer, PrivatePgbouncerBuilder, PrivatePostgres, PrivatePostgresBuilder, PrivateRabbitMq,
    Stop, private_pgbouncer, private_postgres, private_postgres_standby, private_rabbitmq,
};

/// How long a local port may take to accept.
const PROBE: Duration = Duration::from_millis(500);

/// A kind of server.
struct Service {
    name: &'static str,
    variable: &'static str,
    port: u16,
    local_url: &'static str,
}

macro_rules! services {
    ($($function:ident $variable:literal $port:literal $local_url:literal;)*) => {$(
        #[doc = concat!("The URL of a ", stringify!($function), " server: `", $variable, "`, or one on the local port ", $port, ".")]
        ///
        /// # Errors
        /// [`Unavailable::Absent`] when there is neither.
        pub fn $function() -> Result<String, Unavailable> {
            const SERVICE: Service = Service {
                name: stringify!($function),
                variable: $variable,
                port: $port,
                local_url: $local_url,
            };
            SERVICE.resolve(|variable| env::var(variable).ok(), answers)
        }
    )*};
}

services! {
    postgres "HEADLESS_TEST_POSTGRES_URL" 5432 "postgres://postgres@127.0.0.1:5432/test";
    redis "HEADLESS_TEST_REDIS_URL" 6379 "redis://127.0.0.1:6379";
    rabbitmq "HEADLESS_TEST_RABBITMQ_URL" 5672 "amqp://guest:guest@127.0.0.1:5672";
    nats "HEADLESS_TEST_NATS_URL" 4222 "nats://127.0.0.1:4222";
    kafka "HEADLESS_TEST_KAFKA_URL" 9092 "127.0.0.1:9092";
}

impl Service {
    fn resolve(
        &self,
        variable: impl FnOnce(&str) -> Option<String>,
        answers: impl FnOnce(SocketAddr) -> bool,
    ) -> Result<String, Unavailable> {
        if let Some(url) = variable(self.variable).filter(|url| !url.is_empty()) {
            return Ok(url);
        }
        if answers((Ipv4Addr::LOCALHOST, self.port).into()) {
            return Ok(self.local_url.to_owned());
        }
        Err(Unavailable::Absent(format!(
            "no {}: {} is not set and nothing answers on 127.0.0.1:{}",
            self.name, self.variable, self.port
        )))
    }
}

fn answers(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, PROBE).is_ok()
}

/// Whether `HEADLESS_REQUIRE_SERVICES` names this service: then its absence is a failure.
#[must_use]
pub fn is_required(name: &str) -> bool {
    Required::from_list(env::var("HEADLESS_REQUIRE_SERVICES").ok().as_deref()).has(name)
}

/// The services whose absence is a failure.
#[derive(Debug, Default)]
pub(crate) struct Required(BTreeSet<String>);

impl Required {
    /// Those of a list with commas between them, as `HEADLESS_REQUIRE_SERVICES` is.
    pub(crate) fn from_list(list: Option<&str>) -> Self {
        Self(
            list.unwrap_or_default()
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
        )
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: Service = Service {
        name: "nats",
        variable: "HEADLESS_TEST_NATS_URL",
        port: 4222,
        local_url: "nats://local",
    };

    #[test]
    fn should_take_the_variable_when_it_is_set() {
        let set = |name: &str| (name == "HEADLESS_TEST_NATS_URL").then(|| "nats://there".to_owned());
        assert_eq!(SERVICE.resolve(set, |_| true).unwrap(), "nats://there");
        assert_eq!(SERVICE.resolve(set, |_| false).unwrap(), "nats://there");
    }

    #[test]
    fn should_take_the_local_server_when_it_answers() {
        let empty = |_: &str| Some(String::new());
        assert_eq!(SERVICE.resolve(|_| None, |_| true).unwrap(), "nats://local");
        assert_eq!(
            SERVICE.resolve(empty, |at| at.port() == 4222).unwrap(),
            "nats://local"
        );
    }

    #[test]
    fn should_be_absent_and_say_why_when_nothing_is_there() {
        let Err(Unavailable::Absent(why)) = SERVICE.resolve(|_| None, |_| false) else {
            panic!("it is not there");
        };
        assert_eq!(
            why,
            "no nats: HEADLESS_TEST_NATS_URL is not set and nothing answers on 127.0.0.1:4222"
        );
    }

    #[test]
    fn should_require_what_is_listed_when_the_list_has_gaps() {
        let required = Required::from_list(Some(" postgres,, redis "));
        assert!(required.has("postgres") && required.has("redis"));
        assert!(!required.has("") && !required.has("nats"));
        assert!(!Required::from_list(None).has("postgres"));
    }
}
