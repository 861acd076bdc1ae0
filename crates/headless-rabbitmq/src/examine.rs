//! What can be seen of a server from here, and what to do about it. What it is asked to make for that goes with the
//! connection.

use std::time::Duration;

use headless_abstractions::{Check, Error, ErrorKind, Finding};
use lapin::{
    BasicProperties, ExchangeKind,
    options::{
        BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
        ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::{FieldTable, ShortString},
};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    RabbitMqConfig, clock,
    connection::{Link, Live, passive},
    error::fault,
};

mod version;

/// How long the server may take to confirm a message: one that holds publishers back does not say so before one is sent.
const CONFIRM: Duration = Duration::from_secs(5);

/// What this server is like for a service with these settings. Each look is made as long as the one before it allows.
pub(crate) async fn examine(config: &RabbitMqConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    let link = Link::new("doctor", None);
    let started = clock::now();
    match link.first(config).await {
        Ok(live) => {
            let took = started.elapsed();
            findings.push(Finding::good(
                Check::Reachable,
                format!(
                    "answers at {} as user {:?} in {took:.1?}",
                    config.endpoint(),
                    config.server.user
                ),
            ));
            findings.push(version::examine(config).await);
            look(&live, config, &mut findings).await;
        }
        Err(error) => findings.push(unreachable(config, &error)),
    }
    // The look is over: how the good-bye is taken does not matter.
    let _closed = link.close(config).await;
    findings
}

fn unreachable(config: &RabbitMqConfig, error: &Error) -> Finding {
    let mut finding = Finding::failed(Check::Reachable, error);
    if error.kind() == ErrorKind::Denied {
        let server = &config.server;
        finding.fix = Some(format!(
            "correct user, password, virtual host or certificates of the URL; or on the server: `rabbitmqctl add_user {}`, \
             `rabbitmqctl add_vhost {}`, and the rights below `set_permissions -p {} {}`",
            server.user, server.vhost, server.vhost, server.user
        ));
    }
    finding
}

async fn look(live: &Live, config: &RabbitMqConfig, findings: &mut Vec<Finding>) {
    findings.push(Finding::unknown(
        Check::Clock,
        "RabbitMQ does not tell its time, and nothing of ours is compared with it",
    ));
    findings.push(namespace(live, config).await);
    let name: ShortString = format!("{}!doctor:{}", config.namespace, Uuid::new_v4()).into();
    let tried = timeout(config.call_timeout, rights(live, &name)).await;
    match tried {
        Ok(Ok(())) => {
            findings.push(Finding::good(
                Check::Rights,
                format!(
                    "configure, write and read of what begins with {:?}, and what its members need of amq.gen and amq.default",
                    config.namespace.as_str()
                ),
            ));
            findings.push(writable(live, &name).await);
        }
        Ok(Err((right, error))) => {
            findings.push(missing(config, right, &error));
            remove(live, config, &name).await;
        }
        Err(_elapsed) => {
            findings.push(Finding::bad(
            Check::Rights,
            format!(
                "the server did not answer within call_timeout ({:?})",
                config.call_timeout
            ),
            "see whether it is overloaded, or short of memory or disk: `rabbitmq-diagnostics check_running`",
        ));
            remove(live, config, &name).await;
        }
    }
}

/// The exchange goes with its queue, but not where nothing could be bound to it.
async fn remove(live: &Live, config: &RabbitMqConfig, name: &ShortString) {
    let removed = async {
        let channel = live.channel().await?;
        let options = ExchangeDeleteOptions::default();
        channel
            .exchange_delete(name.clone(), options)
            .await
            .map_err(fault)
    };
    match timeout(config.call_timeout, removed).await {
        // Without the right to make it, it is not there.
        Ok(Ok(()) | Err(_)) => {}
        Err(_elapsed) => {
            tracing::warn!(exchange = %name, "an exchange for a trial may be left on the server");
        }
    }
}

/// Whether there is anything of this namespace.
async fn namespace(live: &Live, config: &RabbitMqConfig) -> Finding {
    let there = async {
        let channel = live.channel().await?;
        let asked = channel.queue_declare(config.namespace.registry(), passive(), FieldTable::default());
        asked.await.map_err(fault)
    };
    let found = |what: &str| format!("namespace {:?} {what}", config.namespace.as_str());
    match timeout(config.call_timeout, there).await {
        Ok(Ok(_queue)) => Finding::good(Check::Schema, found("is there")),
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => Finding::good(
            Check::Schema,
            found("is new: services make what they need when they start"),
        ),
        Ok(Err(error)) if error.kind() == ErrorKind::Denied => {
            Finding::unknown(Check::Schema, found("may not be looked into"))
        }
        Ok(Err(error)) => Finding::failed(Check::Schema, &error),
        Err(_elapsed) => Finding::unknown(Check::Schema, found("gave no answer")),
    }
}

/// Does what a service does, with a queue and an exchange that go with the connection; says which right it failed for.
async fn rights(live: &Live, name: &ShortString) -> Result<(), (&'static str, Error)> {
    let of = |right: &'static str| move |error| (right, fault(error));
    let channel = live.channel().await.map_err(|error| ("channel", error))?;
    let none = FieldTable::default;
    channel
        .queue_declare(name.clone(), passing(), none())
        .await
        .map_err(of("configure"))?;
    let going = ExchangeDeclareOptions {
        auto_delete: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(name.clone(), ExchangeKind::Fanout, going, none())
        .await
        .map_err(of("configure"))?;
    channel
        .queue_bind(
            name.clone(),
            name.clone(),
            "".into(),
            QueueBindOptions::default(),
            none(),
        )
        .await
        .map_err(of("write and read"))?;
    channel
        .basic_get(name.clone(), BasicGetOptions { no_ack: true })
        .await
        .map_err(of("read"))?;
    as_a_member(live).await
}

const fn passing() -> QueueDeclareOptions {
    QueueDeclareOptions {
        passive: false,
        durable: false,
        exclusive: true,
        auto_delete: true,
        nowait: false,
    }
}

/// Does what a member of a group does beside: a queue that the server names, by which it hears the others.
async fn as_a_member(live: &Live) -> Result<(), (&'static str, Error)> {
    let of = |right: &'static str| move |error| (right, fault(error));
    let channel = live.channel().await.map_err(|error| ("channel", error))?;
    let own = channel
        .queue_declare("".into(), passing(), FieldTable::default())
        .await
        .map_err(of("configure of amq.gen"))?;
    channel
        .basic_get(own.name().clone(), BasicGetOptions { no_ack: true })
        .await
        .map_err(of("read of amq.gen"))?;
    Ok(())
}

/// Whether a message is confirmed. It goes to the queue that the rights were tried with, and with it.
async fn writable(live: &Live, name: &ShortString) -> Finding {
    let sent = async {
        let channel = live.channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .map_err(fault)?;
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let publish = async |exchange: ShortString| {
            let properties = BasicProperties::default();
            let confirm = channel.basic_publish(exchange, name.clone(), options, b"doctor", properties);
            confirm.await.map_err(fault)?.await.map_err(fault)
        };
        // Members answer each other by the exchange without a name.
        publish("".into()).await?;
        publish(name.clone()).await
    };
    match timeout(CONFIRM, sent).await {
        Ok(Ok(confirmation)) if confirmation.is_ack() => {
            Finding::good(Check::Writable, "a message was confirmed")
        }
        Ok(Ok(_refusal)) => Finding::bad(
            Check::Writable,
            "the server refused a message",
            "look for a policy of the server that limits or refuses what goes to our queues",
        ),
        Ok(Err(error)) if error.kind() == ErrorKind::Denied => Finding::bad(
            Check::Rights,
            error.to_string(),
            "grant `write` of our names and of amq.default to the user of the URL",
        ),
        Ok(Err(error)) => Finding::failed(Check::Writable, &error),
        Err(_elapsed) => Finding::bad(
            Check::Writable,
            if live.is_blocked() {
                "the server holds publishers back: it is short of memory or of disk".to_owned()
            } else {
                format!("a message was not confirmed within {CONFIRM:?}")
            },
            "free memory or disk, or raise vm_memory_high_watermark or lower disk_free_limit: \
             `rabbitmq-diagnostics alarms` says which",
        ),
    }
}

fn missing(config: &RabbitMqConfig, right: &str, error: &Error) -> Finding {
    if error.kind() != ErrorKind::Denied {
        return Finding::failed(Check::Rights, error);
    }
    let (name, server) = (&config.namespace, &config.server);
    Finding::bad(
        Check::Rights,
        format!("missing: {right} ({error})"),
        format!(
            "rabbitmqctl set_permissions -p '{}' '{}' '^({name}[:!]|amq\\.gen).*' '^({name}[:!]|amq\\.).*' \
             '^({name}[:!]|amq\\.).*' (it replaces the patterns that the user has in this virtual host: join them with |, \
             if other namespaces are theirs too)",
            server.vhost, server.user
        ),
    )
}
