//! From parts to a running whole.

use std::{any::Any, sync::Arc};

use headless_abstractions::{Error, ErrorKind, Result, Store, StoreParts, Transport};
use headless_core::{Codec, Codecs, ControlRuntime, Environment, Event, Spawner, State};
use headless_messaging::{
    Consumer, Messaging, Ordered, OutgoingLimits, Plan, PulseConfig, PurgeConfig, RelayConfig,
};
use tokio::runtime::Handle;

use crate::{
    AnyStore, AnyTransport, Preset, Runtime, Setting, Source, node, runtime::Parts, settings::Settings,
};

/// Where everything begins: [`Headless::builder`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Headless;

impl Headless {
    /// A builder of the runtime of this service. The name is checked at start-up.
    pub fn builder(service: impl Into<String>) -> Builder {
        Builder {
            service: service.into(),
            node: None,
            environment: None,
            store: None,
            transport: None,
            state: State::new(),
            codecs: Codecs::new(),
            codec: Source::Default,
            topics: Vec::new(),
            consumers: Vec::new(),
            settings: Settings::default(),
            problems: Vec::new(),
        }
    }
}

/// Puts a [`Runtime`] together. Nothing is checked before [`start`](Self::start), which reports all problems at once.
///
/// ```
/// use headless::{Headless, Memory, Preset};
///
/// # #[tokio::main]
/// # async fn main() -> headless::Result<()> {
/// let memory = Memory::new();
/// let runtime = Headless::builder("orders")
///     .store(&memory)
///     .transport(memory.clone())
///     .preset(Preset::Development)
///     .relay_batch(50)
///     .start()
///     .await?;
/// for setting in runtime.explain() {
///     println!("{setting}");
/// }
/// # runtime.shutdown(std::time::Duration::from_secs(1)).await
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing runs before `start`"]
pub struct Builder {
    service: String,
    node: Option<String>,
    environment: Option<Environment>,
    store: Option<StoreParts>,
    transport: Option<Arc<dyn Transport>>,
    state: State,
    codecs: Codecs,
    codec: Source,
    topics: Vec<Topic>,
    consumers: Vec<Consumer>,
    pub(crate) settings: Settings,
    problems: Vec<String>,
}

#[derive(Debug)]
struct Topic {
    name: String,
    order: Ordered,
    required: bool,
}

impl Builder {
    /// With every part that this store has. Handlers and [`Runtime::begin`] then find it by its type.
    pub fn store<S: Store>(self, store: &S) -> Self {
        self.any_store(&AnyStore::new(store))
    }

    /// With a store that was chosen at run time; see [`Providers`](crate::Providers).
    pub fn any_store(mut self, store: &AnyStore) -> Self {
        if let Some(first) = &self.store {
            self.problems.push(format!(
                "two stores are given, {} and {}: keep one",
                first.info.name,
                store.name()
            ));
            return self;
        }
        self.store = Some(store.parts());
        self.state = store.register(self.state);
        self
    }

    /// With this transport. The runtime closes it at its end.
    pub fn transport(self, transport: impl Transport) -> Self {
        self.any_transport(&AnyTransport::new(transport))
    }

    /// With a transport that was chosen at run time; see [`Providers`](crate::Providers).
    pub fn any_transport(mut self, transport: &AnyTransport) -> Self {
        if let Some(first) = &self.transport {
            self.problems.push(format!(
                "two transports are given, {} and {}: keep one",
                first.info().name,
                transport.name()
            ));
            return self;
        }
        self.transport = Some(transport.driver());
        self
    }

    /// Declares the topic of an event. Every process that publishes to an ordered topic or consumes it declares it.
    pub fn topic<M: Event>(self, order: Ordered) -> Self {
        self.topic_named(M::TOPIC, order)
    }

    /// Declares a topic by its name.
    pub fn topic_named(self, name: impl Into<String>, order: Ordered) -> Self {
        self.declare(name.into(), order, false)
    }

    /// Declares the topic of an event, and makes a message that no group takes an error instead of `Unrouted`.
    pub fn required_topic<M: Event>(self, order: Ordered) -> Self {
        self.required_topic_named(M::TOPIC, order)
    }

    /// As [`required_topic`](Self::required_topic), by its name.
    pub fn required_topic_named(self, name: impl Into<String>, order: Ordered) -> Self {
        self.declare(name.into(), order, true)
    }

    /// With this consumer: the handlers of a group.
    pub fn consumer(mut self, consumer: Consumer) -> Self {
        self.consumers.push(consumer);
        self
    }

    /// With application state for handlers, found by its type; a second value of a type replaces the first.
    pub fn state<T: Any + Send + Sync>(mut self, value: T) -> Self {
        self.state = self.state.with(value);
        self
    }

    /// Writes payloads with this codec, and reads them with it too. Default [`Json`](crate::Json).
    pub fn codec(mut self, codec: impl Codec) -> Self {
        self.codecs = self.codecs.with_default(codec);
        self.codec = Source::Builder;
        self
    }

    /// With the defaults of this preset. What the builder is given by itself stays.
    pub fn preset(mut self, preset: Preset) -> Self {
        self.settings.preset = preset;
        self
    }

    /// What people call this node, at most 100 bytes. Default: the host's name and the process id.
    pub fn node(mut self, label: impl Into<String>) -> Self {
        self.node = Some(label.into());
        self
    }

    /// With time, chance, threads and identity from here instead of the system: for tests and simulations. The node's
    /// label is the environment's then.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// Checks everything, then starts: topics and groups are declared, then the relay runs, then the consumers.
    ///
    /// Work runs on the tokio runtime of the caller; renewals and time-outs on a thread of their own.
    ///
    /// # Errors
    /// `Invalid` with every problem of the configuration; `Conflict` for a topic that exists in another form; else what
    /// the store or the transport answers. Nothing runs then.
    ///
    /// # Cancel safety
    /// Dropping the future may leave topics and groups declared; nothing runs.
    pub async fn start(self) -> Result<Runtime> {
        let problems = self.problems();
        let node = self.node.clone().unwrap_or_else(node::default_label);
        let explained = self.explain(&node);
        let (environment, control) = match self.environment {
            Some(environment) => (environment, None),
            None => {
                let control = control()?;
                let spawner = Spawner::new(work()?, control.handle().clone());
                (Environment::system(spawner, node), Some(control))
            }
        };
        tracing::info!(service = %self.service, node = %environment.node, "starting");
        let mut plan = Plan::new(environment.clone());
        plan.store.clone_from(&self.store);
        plan.transport.clone_from(&self.transport);
        plan.state = self.state.clone();
        plan.codecs = self.codecs;
        for topic in self.topics {
            plan.topic_named(topic.name, topic.order, topic.required);
        }
        for consumer in self.consumers {
            plan.consumer(consumer);
        }
        configure(&mut plan, &self.settings);
        for problem in problems {
            plan.problem(problem);
        }
        let messaging = Messaging::start(plan).await?;
        Ok(Runtime::new(Parts {
            service: self.service.into(),
            messaging,
            environment,
            state: self.state,
            store: self.store,
            transport: self.transport,
            shutdown_timeout: self.settings.shutdown_timeout(),
            explained,
            control,
        }))
    }

    fn declare(mut self, name: String, order: Ordered, required: bool) -> Self {
        self.topics.push(Topic {
            name,
            order,
            required,
        });
        self
    }

    /// What is wrong with what the builder itself was given; the plan finds the rest.
    fn problems(&self) -> Vec<String> {
        let mut problems = self.problems.clone();
        problems.extend(label_problem("the service name", &self.service));
        problems.extend(
            self.node
                .as_deref()
                .and_then(|node| label_problem("the node's label", node)),
        );
        problems.extend(self.settings.problems());
        problems
    }

    fn explain(&self, node: &str) -> Vec<Setting> {
        let given = |given: bool| if given { Source::Builder } else { Source::Default };
        let (node, named) = match &self.environment {
            Some(environment) => (&*environment.node, true),
            None => (node, self.node.is_some()),
        };
        let part = |part: Option<(&str, &str)>| match part {
            Some((name, endpoint)) => format!("{name} at {endpoint}"),
            None => "none".to_owned(),
        };
        let store = self
            .store
            .as_ref()
            .map(|store| (store.info.name, &*store.info.endpoint));
        let transport = self.transport.as_ref().map(|transport| transport.info());
        let transport = transport.as_ref().map(|info| (info.name, &*info.endpoint));
        let mut settings = vec![
            Setting::new("service", &*self.service, Source::Builder),
            Setting::new("node", node, given(named)),
            Setting::new("store", part(store), given(store.is_some())),
            Setting::new("transport", part(transport), given(transport.is_some())),
            Setting::new("codec", self.codecs.writer().content_type(), self.codec),
        ];
        settings.extend(self.settings.explain());
        settings
    }
}

fn configure(plan: &mut Plan, settings: &Settings) {
    plan.limits = OutgoingLimits::default().with_max_payload(settings.max_payload());
    plan.relays = settings.relays();
    plan.relay = RelayConfig::default()
        .with_batch(settings.relay_batch())
        .with_lease(settings.relay_lease())
        .with_poll(settings.relay_poll())
        .with_attempts(settings.relay_attempts())
        .with_backoff(settings.relay_backoff());
    plan.pulse = PulseConfig::default().with_interval(settings.pulse_interval());
    plan.purge = PurgeConfig::default()
        .with_interval(settings.purge_interval())
        .with_batch(settings.purge_batch())
        .with_marks(settings.keep_marks())
        .with_outbox_history(settings.keep_outbox_history())
        .with_dead_letters(settings.keep_dead_letters());
}

fn label_problem(what: &str, label: &str) -> Option<String> {
    const MOST: usize = 100;
    if label.is_empty() {
        Some(format!("{what} is empty"))
    } else if label.len() > MOST {
        Some(format!("{what} is {} bytes, the limit is {MOST}", label.len()))
    } else if label.chars().any(char::is_control) {
        Some(format!("{what} {label:?} has a control character"))
    } else {
        None
    }
}

fn work() -> Result<Handle> {
    Handle::try_current().map_err(|error| {
        Error::invalid("start needs a tokio runtime: call it within one")
            .with_operation("start")
            .with_source(error)
    })
}

fn control() -> Result<ControlRuntime> {
    ControlRuntime::start().map_err(|error| {
        Error::new(ErrorKind::Internal, "the control thread could not be started")
            .with_operation("start")
            .with_source(error)
    })
}
