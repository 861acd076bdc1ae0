//! From parts to a running whole.

use std::{any::Any, collections::BTreeMap, sync::Arc};

use headless_abstractions::{Error, ErrorKind, Result, Store, StoreParts, Transport};
use headless_core::{
    Codec, Codecs, ControlRuntime, Environment, Event, Spawner, State, metric, trace::Propagator,
};
use headless_messaging::{
    Consumer, ControlConfig, GaugesConfig, GroupSetting, Messaging, Ordered, OutgoingLimits, Plan,
    PulseConfig, PurgeConfig, RelayConfig,
};
use tokio::runtime::Handle;

use crate::{
    AnyStore, AnyTransport, Config, Preset, Providers, Runtime, Source, node,
    runtime::Parts,
    settings::{Given, Settings},
};

mod connect;
mod examine;
mod explain;

pub(crate) use connect::Configured;

/// Where everything begins: [`Headless::builder`], or [`Headless::from_config`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Headless;

impl Headless {
    /// A builder of the runtime of this service. The name is checked at start-up.
    pub fn builder(service: impl Into<String>) -> Builder {
        Builder::new(Some(Given::new(service.into(), Source::Builder)))
    }

    /// A builder as [`builder`](Self::builder) makes one, with everything that a configuration sets: the service's name,
    /// store and transport by their URLs, topics, preset, settings, and what an operator tunes of groups. What it is given
    /// in code afterwards goes before them, or is refused where both give it. Handlers are code.
    pub fn from_config(config: &Config) -> Builder {
        let mut builder = Builder::new(None);
        config.apply(&mut builder);
        builder
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
    /// `None` where a configuration does not name it, which is a problem then.
    pub(crate) service: Option<Given<String>>,
    pub(crate) node: Option<Given<String>>,
    environment: Option<Environment>,
    store: Option<StoreParts>,
    transport: Option<Arc<dyn Transport>>,
    pub(crate) configured: Configured,
    providers: Providers,
    propagator: Option<Arc<dyn Propagator>>,
    state: State,
    codecs: Codecs,
    codec: Source,
    topics: Vec<Topic>,
    consumers: Vec<Consumer>,
    /// What a configuration sets of groups, by their names and those of the settings.
    pub(crate) groups: BTreeMap<String, BTreeMap<&'static str, Given<GroupSetting>>>,
    pub(crate) settings: Settings,
    pub(crate) problems: Vec<String>,
}

#[derive(Debug)]
struct Topic {
    name: String,
    order: Ordered,
    required: bool,
    source: Source,
}

impl Builder {
    fn new(service: Option<Given<String>>) -> Self {
        Self {
            service,
            node: None,
            environment: None,
            store: None,
            transport: None,
            configured: Configured::default(),
            providers: Providers::builtin(),
            propagator: None,
            state: State::new(),
            codecs: Codecs::new(),
            codec: Source::Default,
            topics: Vec::new(),
            consumers: Vec::new(),
            groups: BTreeMap::new(),
            settings: Settings::default(),
            problems: Vec::new(),
        }
    }

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
    pub fn topic_named(mut self, name: impl Into<String>, order: Ordered) -> Self {
        self.declare(name.into(), order, false, Source::Builder);
        self
    }

    /// Declares the topic of an event, and makes a message that no group takes an error instead of `Unrouted`.
    pub fn required_topic<M: Event>(self, order: Ordered) -> Self {
        self.required_topic_named(M::TOPIC, order)
    }

    /// As [`required_topic`](Self::required_topic), by its name.
    pub fn required_topic_named(mut self, name: impl Into<String>, order: Ordered) -> Self {
        self.declare(name.into(), order, true, Source::Builder);
        self
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
        self.settings.preset_source = Source::Builder;
        self
    }

    /// What people call this node, at most 100 bytes. Default: the host's name and the process id.
    pub fn node(mut self, label: impl Into<String>) -> Self {
        self.node = Some(Given::new(label.into(), Source::Builder));
        self
    }

    /// Finds the store and the transport of a [`Config`] among these. Default [`Providers::builtin`].
    pub fn providers(mut self, providers: Providers) -> Self {
        self.providers = providers;
        self
    }

    /// With time, chance, threads and identity from here instead of the system: for tests and simulations. The node's
    /// label is the environment's then.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// Ties the spans of the runtime to messages by OpenTelemetry: what is published carries on the trace of the span that
    /// publishes it, the first attempt at a message is a child of the span that published it, and later attempts are
    /// linked to that. It needs the layer of `tracing-opentelemetry` among the subscriber's; `docs/telemetry.md` says how.
    #[cfg(feature = "opentelemetry")]
    pub fn opentelemetry(self) -> Self {
        self.propagator(crate::open_telemetry::OpenTelemetry)
    }

    /// Ties the spans of the runtime to messages by this; see [`Propagator`].
    pub fn propagator(mut self, propagator: impl Propagator) -> Self {
        self.propagator = Some(Arc::new(propagator));
        self
    }

    /// Checks what can be known without a connection: everything that is given in code and in a configuration. What it
    /// refuses, [`start`](Self::start) refuses too, before it connects.
    ///
    /// # Errors
    /// `Invalid` with every problem, each with what it is about and, where a configuration says it, with its place.
    pub fn check(&self) -> Result<()> {
        // Nothing is started from this plan: whatever its environment is, it stays unused.
        let environment = match &self.environment {
            Some(environment) => environment.clone(),
            None => {
                let none = Spawner::new(work()?, work()?);
                Environment::system(none, self.label())
            }
        };
        let [store, transport] = self.configured.is_named;
        self.plan(&environment).check_before_connecting(store, transport)
    }

    /// Checks everything, then starts: the store and the transport of a configuration are connected to, topics and groups
    /// are declared, the node registers where the store watches over its nodes, then the relay runs, then the consumers.
    ///
    /// Work runs on the tokio runtime of the caller; renewals and time-outs on a thread of their own.
    ///
    /// # Errors
    /// `Invalid` with every problem of the configuration; `Conflict` for a topic that exists in another form; else what
    /// the store or the transport answers. Nothing runs then.
    ///
    /// # Cancel safety
    /// Dropping the future may leave topics and groups declared; nothing runs.
    pub async fn start(mut self) -> Result<Runtime> {
        let label = self.label();
        let (mut environment, control) = match &self.environment {
            Some(environment) => (environment.clone(), None),
            None => {
                let control = control()?;
                let spawner = Spawner::new(work()?, control.handle().clone());
                (Environment::system(spawner, label), Some(control))
            }
        };
        if let Some(propagator) = &self.propagator {
            environment.propagator = propagator.clone();
        }
        if self.configured.is_any() {
            let [store, transport] = self.configured.is_named;
            self.plan(&environment)
                .check_before_connecting(store, transport)?;
            self.connect().await?;
        }
        let explained = self.explain_of(&environment.node);
        let service = self.service.as_ref().map_or("", |service| &*service.value);
        tracing::info!(service, node = %environment.node, "starting");
        metric::describe();
        let messaging = Messaging::start(self.plan(&environment)).await?;
        Ok(Runtime::new(Parts {
            service: service.into(),
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

    /// What is to be done, and every problem that is known so far.
    fn plan(&self, environment: &Environment) -> Plan {
        let mut plan = Plan::new(environment.clone());
        plan.store.clone_from(&self.store);
        plan.transport.clone_from(&self.transport);
        plan.state = self.state.clone();
        plan.codecs = self.codecs.clone();
        for topic in &self.topics {
            plan.topic_named(topic.name.clone(), topic.order, topic.required);
        }
        for consumer in &self.consumers {
            let mut consumer = consumer.clone();
            for given in self
                .groups
                .get(consumer.name())
                .into_iter()
                .flat_map(BTreeMap::values)
            {
                if let Err(error) = consumer.configure(given.value, given.source.to_string()) {
                    plan.problem(error.message());
                }
            }
            plan.consumer(consumer);
        }
        let of_settings = self.settings.problems();
        // What is out of its bounds is reported with its place, and not once more by the part that it is for.
        if of_settings.is_empty() {
            configure(&mut plan, &self.settings);
        }
        if self.settings.registers() {
            plan.service = self.service.as_ref().map(|service| service.value.clone());
        }
        plan.control = self.service.as_ref().map(|service| {
            ControlConfig::new(service.value.clone()).with_interval(self.settings.control_interval())
        });
        for problem in self.problems().into_iter().chain(of_settings) {
            plan.problem(problem);
        }
        plan
    }

    fn label(&self) -> String {
        match &self.node {
            Some(node) => node.value.clone(),
            None => node::default_label(),
        }
    }

    pub(crate) fn declare(&mut self, name: String, order: Ordered, required: bool, source: Source) {
        self.topics.push(Topic {
            name,
            order,
            required,
            source,
        });
    }

    /// What is wrong with what the builder itself was given; the plan finds the rest.
    fn problems(&self) -> Vec<String> {
        let mut problems = self.problems.clone();
        for (what, label) in [
            ("the service name", &self.service),
            ("the node's label", &self.node),
        ] {
            problems.extend(label.as_ref().and_then(|label| label_problem(what, label)));
        }
        problems.extend(self.configured_problems());
        problems
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
    plan.membership = settings.membership();
    plan.pulse = PulseConfig::default().with_interval(settings.pulse_interval());
    plan.gauges = Some(GaugesConfig::default().with_interval(settings.metrics_interval()));
    plan.purges = settings.purges();
    plan.purge = PurgeConfig::default()
        .with_interval(settings.purge_interval())
        .with_batch(settings.purge_batch())
        .with_marks(settings.keep_marks())
        .with_outbox_history(settings.keep_outbox_history())
        .with_dead_letters(settings.keep_dead_letters());
}

fn label_problem(what: &str, label: &Given<String>) -> Option<String> {
    const MOST: usize = 100;
    let (place, label) = (label.source.place(), &*label.value);
    if label.is_empty() {
        Some(format!("{what}{place} is empty"))
    } else if label.len() > MOST {
        Some(format!(
            "{what}{place} is {} bytes, the limit is {MOST}",
            label.len()
        ))
    } else if label.chars().any(char::is_control) {
        Some(format!("{what}{place} {label:?} has a control character"))
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
