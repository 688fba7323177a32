package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// The bounds and defaults of the durations of a connection, as in the schema.
const (
	// DefaultResyncPeriod is the resyncPeriod of a spec without one.
	DefaultResyncPeriod = 10 * time.Minute
	// MinResyncPeriod is the shortest resyncPeriod other than 0s, which is off.
	MinResyncPeriod = 5 * time.Second
	// MaxResyncPeriod is the longest resyncPeriod: a week.
	MaxResyncPeriod = 168 * time.Hour

	// DefaultRequestTimeout is the requestTimeout of a spec without one.
	DefaultRequestTimeout = 30 * time.Second
	// MinRequestTimeout is the shortest requestTimeout.
	MinRequestTimeout = time.Second
	// MaxRequestTimeout is the longest requestTimeout.
	MaxRequestTimeout = 2 * time.Minute
)

// Credentials is what the connection authenticates with.
type Credentials struct {
	// tokenSecretRef names the Secret and key that hold the token of a Grafana
	// service account. The Secret is in the namespace of the connection; for a
	// ClusterGrafanaConnection it is in the namespace of the operator. White space
	// around the token is ignored. A Cloud access policy token (glc_...) does not
	// work: create a service account token in the stack itself. The token needs
	// secret.securevalues:create, :read, :write and :delete on
	// secret.securevalues:*. A change of the Secret takes effect at once.
	//
	// +required
	TokenSecretRef SecretKeyReference `json:"tokenSecretRef"`
}

// TLSConfig says how the certificate of Grafana is verified.
type TLSConfig struct {
	// caSecretRef names the Secret and key that hold one or more PEM certificates
	// of authorities, for example ca.crt. They are trusted instead of those of the
	// operator's image. The Secret is in the namespace of the connection; for a
	// ClusterGrafanaConnection it is in the namespace of the operator. A change of
	// the Secret takes effect at once.
	//
	// +optional
	CASecretRef *SecretKeyReference `json:"caSecretRef,omitempty"`

	// clientCertSecretRef names the Secret with the client certificate and its
	// key, which the operator presents to Grafana: tls.crt and tls.key, as in a
	// Secret of type kubernetes.io/tls. The Secret is in the namespace of the
	// connection; for a ClusterGrafanaConnection it is in the namespace of the
	// operator. A change of the Secret takes effect at once.
	//
	// +optional
	ClientCertSecretRef *SecretReference `json:"clientCertSecretRef,omitempty"`

	// serverName is the host name that Grafana's certificate must have: at most
	// 253 letters, digits, '-' and '.', for example grafana.example.com. Defaults
	// to the host of url.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="size(self) <= 253 && self.matches('^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?([.][A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*$')",message="must be a host name: at most 253 letters, digits, '-' and '.', without scheme and port, for example grafana.example.com"
	ServerName string `json:"serverName,omitempty"`

	// insecureSkipVerify turns off the verification of Grafana's certificate. An
	// attacker between the operator and Grafana can then read the token and all
	// values. The connection says TLSError unless the operator runs with
	// --allow-insecure-tls. While it is in use, the message of Ready says so. Prefer
	// caSecretRef. Defaults to false.
	//
	// +optional
	InsecureSkipVerify bool `json:"insecureSkipVerify,omitempty"`
}

// ConnectionSpec is what the two kinds of connection share.
//
// The rules of url are here and not at url: the API server repeats the value of
// a field that violates a rule of its own, and a URL may have a password.
//
// +kubebuilder:validation:XValidation:rule="!has(self.url) || self.url.matches('^[[:space:]]|^https?://[^/?#]')",message="must begin with http:// or https:// and name a host, for example https://acme.grafana.net",fieldPath=".url"
// +kubebuilder:validation:XValidation:rule="!has(self.url) || size(self.url) <= 2048",message="must be at most 2048 characters",fieldPath=".url"
// +kubebuilder:validation:XValidation:rule="!has(self.url) || !self.url.matches('[[:space:][:cntrl:]]')",message="must not contain white space or control characters",fieldPath=".url"
// +kubebuilder:validation:XValidation:rule="!has(self.url) || !self.url.matches('[?#]')",message="must not contain a query or a fragment: end it with the host, the port or the path",fieldPath=".url"
// +kubebuilder:validation:XValidation:rule="!has(self.url) || (!self.url.matches('^https?://[^/?#]') || self.url.matches('[[:space:][:cntrl:]?#]|^https?://[^/]*@') || (self.url.contains('%') || isURL(self.url)) && self.url.matches('^https?://([A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?([.][A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?)*[.]?|[[][0-9A-Fa-f:.]+[]])(:[0-9]+)?(/.*)?$'))",message="must name a host of letters, digits, '-', '_' and '.', or an IPv6 address in brackets, optionally followed by a port and a path, for example http://grafana.example.com:3000/grafana",fieldPath=".url"
// +kubebuilder:validation:XValidation:rule="!has(self.url) || (!self.url.matches('^https?://([A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?[.])*([0-9]+|0[xX][0-9A-Fa-f]*)[.]?(:[0-9]+)?(/.*)?$') || self.url.matches('^https?://((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])[.]){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(:[0-9]+)?(/.*)?$'))",message="must write an IPv4 address as four decimal numbers without zeros before them, for example http://10.0.0.5:3000",fieldPath=".url"
// +kubebuilder:validation:XValidation:rule="!has(self.url) || !self.url.matches('^https?://[[][0:]*:[fF]{4}:([0-9.]+|[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4})[]]')",message="must write an IPv4 address as four decimal numbers, not within an IPv6 address, for example http://10.0.0.5:3000",fieldPath=".url"
// +kubebuilder:validation:XValidation:rule="!has(self.url) || !self.url.matches('^https?://(((0|22[4-9]|2[3-5][0-9])[.][0-9]+|169[.]254)[.][0-9]+[.][0-9]+(:[0-9]+)?(/.*)?$|[[]([fF][eE][89A-Fa-f][0-9A-Fa-f]:|[fF][fF][0-9A-Fa-f]{2}:|[0:]+[]]))')",message="must not name a link-local, multicast, reserved or unspecified address: no Grafana is there",fieldPath=".url"
// +kubebuilder:validation:XValidation:rule="!has(self.url) || !self.url.matches('%([^0-9A-Fa-f]|[0-9A-Fa-f]([^0-9A-Fa-f]|$)|$)')",message="must have two hexadecimal digits after each '%' in the path",fieldPath=".url"
// +kubebuilder:validation:XValidation:rule="!has(self.url) || (!self.url.matches('^https?://[^/?#]*:[0-9]+([/?#]|$)') || self.url.matches('^https?://[^/?#]*:0*(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})([/?#]|$)'))",message="must have a port from 1 to 65535, or none",fieldPath=".url"
// +kubebuilder:validation:XValidation:rule="!has(self.url) || !self.url.matches('[^/]/apis(/?$|/[^/?#]*[.]grafana[.]app(/|$))')",message="must end before /apis: the operator adds that path, so write for example https://acme.grafana.net",fieldPath=".url"
// +kubebuilder:validation:XValidation:rule="!has(self.url) || !self.url.matches('^https?://[^/?#]*@')",message="must not contain a user or a password: the token comes from credentials.tokenSecretRef",fieldPath=".url"
// +kubebuilder:validation:XValidation:rule="!has(self.url) || (!self.url.matches('(?i)^https?://[^/?#]+[.]grafana[.]net[.]?(:[0-9]*)?([/?#]|$)') || self.__namespace__.startsWith('stacks-'))",message="must be stacks-<id> for a stack of Grafana Cloud (a host under .grafana.net): the id is a number, shown on grafana.com in the details of the stack",fieldPath=".namespace"
type ConnectionSpec struct {
	// url is the address of Grafana: http or https, a host, optionally a port from
	// 1 to 65535 and a path, at most 2048 characters in all, for example
	// https://acme.grafana.net or http://[::1]:3000/grafana. It has no user, query
	// or fragment, and ends before /apis, which the operator adds. An IPv4 address is
	// four decimal numbers. The operator never calls link-local addresses, those of
	// cloud metadata services, and others that no Grafana can have, whatever name
	// resolves to them. An installation may restrict the hosts further. A change
	// means the same Grafana at another address. For another Grafana, create another
	// connection.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	URL string `json:"url,omitempty"`

	// namespace is the organization or stack in Grafana: stacks-<id> for a stack
	// of Grafana Cloud, where the id is shown on grafana.com in the details of the
	// stack; elsewhere default for organization 1, and org-<id> from organization
	// 2 on. A host under .grafana.net needs stacks-<id>. It cannot be changed. For
	// another organization or stack, create another connection and name it in the
	// connectionRef of the secure values that should move. Defaults to default.
	//
	// +optional
	// +kubebuilder:default=default
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self == 'org-1' || self.matches('^(default|org-([2-9]|[1-9][0-9]{1,17})|stacks-[1-9][0-9]{0,17})$')",message="must be default, org-<id> with an id from 2 on, or stacks-<id>, for example stacks-1234"
	// +kubebuilder:validation:XValidation:rule="self != 'org-1'",message="must be default: this is how Grafana calls organization 1"
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="cannot be changed: create another connection for the other organization or stack, and name it in the connectionRef of the secure values that should move"
	Namespace string `json:"namespace,omitempty"`

	// apiVersion is the version of the API secret.grafana.app that Grafana serves,
	// for example v1beta1. Defaults to v1beta1.
	//
	// +optional
	// +kubebuilder:default=v1beta1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="size(self) <= 63 && self.matches('^v[0-9]+((alpha|beta)[0-9]+)?$')",message="must be a version of the API secret.grafana.app, for example v1beta1 or v1"
	APIVersion string `json:"apiVersion,omitempty"`

	// credentials is what the connection authenticates with.
	//
	// +optional
	Credentials Credentials `json:"credentials,omitzero"`

	// tls says how the certificate of Grafana is verified. By default it must name
	// the host of url, and be from an authority that the operator's image trusts.
	//
	// +optional
	TLS *TLSConfig `json:"tls,omitempty"`

	// resyncPeriod is how often one request checks the credentials and finds drift
	// of all secure values of this connection: 5s to 168h (a week), written with
	// h, m and s, for example 10m or 1h30m. 0s turns it off. Changes in Kubernetes
	// do not wait for it. Defaults to 10m.
	//
	// +optional
	// +kubebuilder:default="10m"
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self != '' && size(self) <= 32 && self.matches('^([0-9]{1,4}([.][0-9]{1,9})?h)?([0-9]{1,6}([.][0-9]{1,9})?m)?([0-9]{1,7}([.][0-9]{1,9})?s)?([0-9]{1,9}ms)?$') && (duration(self) == duration('0s') || duration(self) >= duration('5s') && duration(self) <= duration('168h'))",message="must be from 5s to 168h, or 0s to turn it off, written with h, m and s in at most 32 characters, for example 10m or 1h30m"
	ResyncPeriod string `json:"resyncPeriod,omitempty"`

	// requestTimeout is how long one request to Grafana may take: 1s to 2m,
	// written with m and s, for example 30s or 1m30s. A write without an answer may
	// still take effect for as long. A deletion after such a write, or after a
	// restart of the operator, therefore waits for that time. Defaults to 30s.
	//
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self != '' && size(self) <= 32 && self.matches('^([0-9]{1,4}([.][0-9]{1,9})?h)?([0-9]{1,6}([.][0-9]{1,9})?m)?([0-9]{1,7}([.][0-9]{1,9})?s)?([0-9]{1,9}ms)?$') && duration(self) >= duration('1s') && duration(self) <= duration('2m')",message="must be from 1s to 2m, written with m and s in at most 32 characters, for example 30s or 1m30s"
	RequestTimeout string `json:"requestTimeout,omitempty"`

	// rateLimit bounds the requests of this connection. Secure values beyond it
	// wait in a queue. Defaults to 50 requests per second and 8 secure values at a
	// time.
	//
	// +optional
	RateLimit *RateLimit `json:"rateLimit,omitempty"`
}

// ResyncInterval is the parsed resyncPeriod; zero means off. It is
// DefaultResyncPeriod where that is absent or out of bounds.
func (s *ConnectionSpec) ResyncInterval() time.Duration {
	d, err := time.ParseDuration(s.ResyncPeriod)
	if err != nil || d != 0 && (d < MinResyncPeriod || d > MaxResyncPeriod) {
		return DefaultResyncPeriod
	}
	return d
}

// Timeout is the parsed requestTimeout. It is DefaultRequestTimeout where that
// is absent or out of bounds.
func (s *ConnectionSpec) Timeout() time.Duration {
	d, err := time.ParseDuration(s.RequestTimeout)
	if err != nil || d < MinRequestTimeout || d > MaxRequestTimeout {
		return DefaultRequestTimeout
	}
	return d
}

// RateLimit bounds the requests of one connection.
type RateLimit struct {
	// requestsPerSecond bounds the requests per second: 0 to 10000, where 0 is no
	// limit. A burst may have the requests of one second. Defaults to 50.
	//
	// +optional
	// +kubebuilder:default=50
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10000
	RequestsPerSecond *int32 `json:"requestsPerSecond,omitempty"`

	// maxInFlight bounds the secure values that are reconciled with Grafana at a
	// time: 1 to 256. Defaults to 8.
	//
	// +optional
	// +kubebuilder:default=8
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=256
	MaxInFlight *int32 `json:"maxInFlight,omitempty"`
}

// Default bounds of the requests of one connection.
const (
	DefaultRequestsPerSecond = 50
	DefaultMaxInFlight       = 8
)

// Limits returns the bounds of requests per second, where 0 is no limit, and of secure values at a time. A bound that is absent or out
// of the schema's bounds is the default.
func (s *ConnectionSpec) Limits() (perSecond, maxInFlight int) {
	perSecond, maxInFlight = DefaultRequestsPerSecond, DefaultMaxInFlight
	if s.RateLimit == nil {
		return perSecond, maxInFlight
	}
	if n := s.RateLimit.RequestsPerSecond; n != nil && *n >= 0 && *n <= 10000 {
		perSecond = int(*n)
	}
	if n := s.RateLimit.MaxInFlight; n != nil && *n >= 1 && *n <= 256 {
		maxInFlight = int(*n)
	}
	return perSecond, maxInFlight
}

// ConnectionStatus is the observed state of either kind of connection.
type ConnectionStatus struct {
	// observedGeneration is the metadata.generation that the conditions describe;
	// -1 before the first reconcile. The conditions are up to date only if it
	// equals metadata.generation.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions has Ready after the first reconcile: its reason is a word from a
	// documented list, and its message says what to do next. It also has
	// Reconciling while the operator retries or waits for something that it
	// watches, or Stalled while a person has to act; never both. Ready=True proves
	// that reading works; a missing right to write shows on the secure value.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// url is the address at which the operator last found Grafana with the secure
	// values that are recorded on this connection. It is absent before the first
	// success. Where spec asks for another address, that has not been confirmed yet.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	URL string `json:"url,omitempty"`

	// clusterID identifies this cluster in the owner labels of its secure values in
	// Grafana: the flag --cluster-id of the operator, or the UID of the namespace
	// kube-system.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	ClusterID string `json:"clusterID,omitempty"`

	// secureValues is how many GrafanaSecureValues use this connection, as of the
	// last resync.
	//
	// +optional
	SecureValues *int32 `json:"secureValues,omitempty"`

	// orphanedValues is how many secure values in Grafana have an owner label of
	// this cluster, and no GrafanaSecureValue that owns them, as of the last resync.
	// It includes those that deletionPolicy Retain left there. For a
	// GrafanaConnection only those of its own namespace count. The operator never
	// deletes them.
	//
	// +optional
	OrphanedValues *int32 `json:"orphanedValues,omitempty"`
}

// Connection is either kind of connection.
//
// +kubebuilder:object:generate=false
type Connection interface {
	metav1.Object
	runtime.Object

	// GetSpec is the part of the spec that both kinds share, not a copy of it.
	GetSpec() *ConnectionSpec
	// GetStatus is the status, not a copy of it.
	GetStatus() *ConnectionStatus
	// ConnectionKind is the kind, even where the TypeMeta is empty.
	ConnectionKind() ConnectionKind
}

var (
	_ Connection = &GrafanaConnection{}
	_ Connection = &ClusterGrafanaConnection{}
)

// GrafanaReference names a Grafana of grafana-operator. It has no namespace: a
// connection names only Grafanas of its own namespace.
//
// +structType=atomic
type GrafanaReference struct {
	// name is the metadata.name of the Grafana: at most 253 lower-case letters,
	// digits, '-' and '.', for example grafana.
	//
	// +required
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="size(self) <= 253 && self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a Grafana: at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at each end, for example grafana"
	Name string `json:"name"`
}

// GrafanaConnectionSpec is the desired state of a GrafanaConnection: the Grafana
// of url, with credentials, or that of grafanaRef.
//
// +kubebuilder:validation:XValidation:rule="has(self.url) || has(self.grafanaRef)",message="must be given together with credentials, or grafanaRef in place of both",fieldPath=".url",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule="!has(self.url) || has(self.grafanaRef) || has(self.credentials)",message="must be given with url: name the Secret with the token in credentials.tokenSecretRef",fieldPath=".credentials",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule="!has(self.grafanaRef) || !has(self.url)",message="must not be given with grafanaRef, which has its own: remove url, or grafanaRef",fieldPath=".url",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="!has(self.grafanaRef) || !has(self.credentials)",message="must not be given with grafanaRef, which has its own: remove credentials, or grafanaRef",fieldPath=".credentials",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="!has(self.grafanaRef) || !has(self.tls)",message="must not be given with grafanaRef, which has its own: remove tls, or grafanaRef",fieldPath=".tls",reason=FieldValueForbidden
type GrafanaConnectionSpec struct {
	ConnectionSpec `json:",inline"`

	// grafanaRef names a Grafana of grafana-operator
	// (grafana.integreatly.org/v1beta1) in the same namespace, in place of url,
	// credentials and tls. Its spec.external.url, its token or its admin user and
	// password, and its TLS settings are used, and followed when they change. The
	// rules of url apply to its URL. namespace decides the organization or stack.
	// The installation must allow the operator to read Grafanas.
	//
	// +optional
	GrafanaRef *GrafanaReference `json:"grafanaRef,omitempty"`
}

// GrafanaConnection says how to reach one Grafana, for the GrafanaSecureValues
// of its own namespace. Example:
//
//	apiVersion: grafana.securevalues.io/v1alpha1
//	kind: GrafanaConnection
//	metadata: {name: prod, namespace: team-a}
//	spec:
//	  url: https://acme.grafana.net
//	  namespace: stacks-1234
//	  credentials:
//	    tokenSecretRef: {name: grafana, key: token}
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:path=grafanaconnections,scope=Namespaced,shortName=gconn,categories=secure-values
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether the last check of Grafana succeeded"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="The reason of Ready"
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.status.url`,description="The address that Grafana last answered at; empty until it has"
// +kubebuilder:printcolumn:name="Grafana Namespace",type=string,JSONPath=`.spec.namespace`,description="The organization or stack in Grafana"
// +kubebuilder:printcolumn:name="Used By",type=integer,JSONPath=`.status.secureValues`,description="How many GrafanaSecureValues use the connection, as of the last resync"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Orphaned",type=integer,JSONPath=`.status.orphanedValues`,priority=1,description="How many secure values in Grafana no object owns any more"
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1,description="The message of Ready: what is true, and what to do next"
type GrafanaConnection struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard metadata of a Kubernetes object.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is how to reach Grafana.
	//
	// +required
	Spec GrafanaConnectionSpec `json:"spec"`

	// status is the result of the last check of Grafana. Only the operator writes
	// it.
	//
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status ConnectionStatus `json:"status,omitzero"`
}

// GetSpec implements Connection.
func (c *GrafanaConnection) GetSpec() *ConnectionSpec { return &c.Spec.ConnectionSpec }

// GetStatus implements Connection.
func (c *GrafanaConnection) GetStatus() *ConnectionStatus { return &c.Status }

// ConnectionKind implements Connection.
func (c *GrafanaConnection) ConnectionKind() ConnectionKind { return KindGrafanaConnection }

// GrafanaConnectionList is a list of GrafanaConnection.
//
// +kubebuilder:object:root=true
type GrafanaConnectionList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []GrafanaConnection `json:"items"`
}

// NamespacesFrom says which namespaces may use a cluster connection.
//
// +kubebuilder:validation:Enum=All;Selector
type NamespacesFrom string

const (
	// NamespacesFromAll allows every namespace.
	NamespacesFromAll NamespacesFrom = "All"
	// NamespacesFromSelector allows the namespaces that a label selector matches.
	NamespacesFromSelector NamespacesFrom = "Selector"
)

// AllowedNamespaces says which namespaces may use a cluster connection.
//
// +structType=atomic
// +kubebuilder:validation:XValidation:rule="self.from != 'Selector' || has(self.selector)",message="must be given with from: Selector: name the labels of the namespaces that may use the connection, or write from: All",fieldPath=".selector",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule="self.from == 'Selector' || !has(self.selector)",message="must not be given with from: All: remove it, or write from: Selector",fieldPath=".selector",reason=FieldValueForbidden
type AllowedNamespaces struct {
	// from is All for every namespace, or Selector for the namespaces whose labels
	// selector matches.
	//
	// +required
	From NamespacesFrom `json:"from"`

	// selector matches the labels of the namespaces that may use the connection,
	// for example {matchLabels: {team: observability}}; an empty selector matches
	// every namespace. Required with from: Selector, forbidden otherwise. At most
	// 64 labels and 64 expressions. A user who may label a namespace can grant it
	// this connection.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="!has(self.matchLabels) || size(self.matchLabels) <= 64",message="must have at most 64 labels",fieldPath=".matchLabels"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || size(self.matchExpressions) <= 64",message="must have at most 64 expressions",fieldPath=".matchExpressions"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn', 'Exists', 'DoesNotExist'])",message="must use the operators In, NotIn, Exists or DoesNotExist",fieldPath=".matchExpressions"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, (e.operator in ['Exists', 'DoesNotExist']) != (has(e.values) && size(e.values) > 0))",message="must have values with In and NotIn, and none with Exists and DoesNotExist",fieldPath=".matchExpressions"
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// Adoption says whether objects may take over values in Grafana that no object
// of their cluster owns.
//
// +kubebuilder:validation:Enum=Allowed;Forbidden
type Adoption string

const (
	// AdoptionAllowed leaves it to the adoptionPolicy of each object.
	AdoptionAllowed Adoption = "Allowed"
	// AdoptionForbidden lets no object adopt a value, whatever its adoptionPolicy.
	AdoptionForbidden Adoption = "Forbidden"
)

// ClusterGrafanaConnectionSpec is the desired state of a
// ClusterGrafanaConnection.
//
// +kubebuilder:validation:XValidation:rule="has(self.url)",message="must be given, for example https://acme.grafana.net",fieldPath=".url",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule="has(self.credentials)",message="must be given: name the Secret with the token in credentials.tokenSecretRef",fieldPath=".credentials",reason=FieldValueRequired
type ClusterGrafanaConnectionSpec struct {
	ConnectionSpec `json:",inline"`

	// allowedNamespaces says which namespaces may use this connection. Revoking the
	// right stops creates and updates of a namespace at once; what it owns in
	// Grafana can still be deleted.
	//
	// +required
	AllowedNamespaces AllowedNamespaces `json:"allowedNamespaces"`

	// allowedDecrypters are the decrypters that a secure value of this connection
	// may name: 1 to 64, each once, for example [synthetic-monitoring, k6-cloud]. A
	// secure value that names another one is not written, and says
	// DecrypterNotAllowed. What it owns in Grafana stays, and can still be deleted.
	// Absent: any decrypter.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:XValidation:rule="size(self) >= 1",message="must name at least one decrypter: leave it out to allow any"
	// +kubebuilder:validation:XValidation:rule="size(self) <= 64",message="must have at most 64 decrypters"
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, a == b))",message="must not name a decrypter twice: remove the duplicate"
	// +kubebuilder:validation:items:MaxLength=256
	// +kubebuilder:validation:items:XValidation:rule="size(self) <= 63 && self.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",message="must be the name of a decrypter: 1 to 63 letters, digits, '-', '_' and '.', with a letter or digit at each end and no spaces, for example synthetic-monitoring"
	AllowedDecrypters []string `json:"allowedDecrypters,omitempty"`

	// requireNamePrefix says whether the name in Grafana of a secure value of this
	// connection must begin with its namespace and a dot, for example
	// team-a.sm-api-key. A namespace has no dot, so no two namespaces of a cluster
	// can use the same name. Where several clusters share a Grafana, namespaces of
	// the same name have the same prefix. A secure value with another name is not
	// written, and says NameNotAllowed. What it owns in Grafana stays, and can still
	// be deleted. Defaults to false.
	//
	// +optional
	RequireNamePrefix bool `json:"requireNamePrefix,omitempty"`

	// adoption says whether the adoptionPolicy of a secure value may take over a
	// value that exists in Grafana: Allowed or Forbidden. With Forbidden, a secure
	// value with adoptionPolicy Adopt says AdoptionNotAllowed. It is no adoption
	// when a secure value takes over what another one of its namespace has left.
	// Defaults to Allowed.
	//
	// +optional
	// +kubebuilder:default=Allowed
	Adoption Adoption `json:"adoption,omitempty"`
}

// ClusterGrafanaConnection says how to reach one Grafana, for the
// GrafanaSecureValues of the namespaces that it allows. Its Secrets are in the
// namespace of the operator, where the teams cannot read them. Secure values
// that name no connection use the ClusterGrafanaConnection called default.
// Example:
//
//	apiVersion: grafana.securevalues.io/v1alpha1
//	kind: ClusterGrafanaConnection
//	metadata: {name: default}
//	spec:
//	  url: https://acme.grafana.net
//	  namespace: stacks-1234
//	  credentials:
//	    tokenSecretRef: {name: grafana, key: token}
//	  allowedNamespaces: {from: All}
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:path=clustergrafanaconnections,scope=Cluster,shortName=cgconn,categories=secure-values
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether the last check of Grafana succeeded"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="The reason of Ready"
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.status.url`,description="The address that Grafana last answered at; empty until it has"
// +kubebuilder:printcolumn:name="Grafana Namespace",type=string,JSONPath=`.spec.namespace`,description="The organization or stack in Grafana"
// +kubebuilder:printcolumn:name="Used By",type=integer,JSONPath=`.status.secureValues`,description="How many GrafanaSecureValues use the connection, as of the last resync"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Orphaned",type=integer,JSONPath=`.status.orphanedValues`,priority=1,description="How many secure values in Grafana no object owns any more"
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1,description="The message of Ready: what is true, and what to do next"
type ClusterGrafanaConnection struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard metadata of a Kubernetes object.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is how to reach Grafana, and which namespaces may use it.
	//
	// +required
	Spec ClusterGrafanaConnectionSpec `json:"spec"`

	// status is the result of the last check of Grafana. Only the operator writes
	// it.
	//
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status ConnectionStatus `json:"status,omitzero"`
}

// GetSpec implements Connection.
func (c *ClusterGrafanaConnection) GetSpec() *ConnectionSpec { return &c.Spec.ConnectionSpec }

// GetStatus implements Connection.
func (c *ClusterGrafanaConnection) GetStatus() *ConnectionStatus { return &c.Status }

// ConnectionKind implements Connection.
func (c *ClusterGrafanaConnection) ConnectionKind() ConnectionKind {
	return KindClusterGrafanaConnection
}

// ClusterGrafanaConnectionList is a list of ClusterGrafanaConnection.
//
// +kubebuilder:object:root=true
type ClusterGrafanaConnectionList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []ClusterGrafanaConnection `json:"items"`
}
