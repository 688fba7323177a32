package fingerprint

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

// +kubebuilder:rbac:groups="",namespace=system,resources=secrets,verbs=create
// +kubebuilder:rbac:groups="",namespace=system,resources=secrets,resourceNames=grafana-secure-value-operator-fingerprint,verbs=get

const (
	// SecretName is the name of the Secret that holds the key, in the operator's namespace.
	SecretName = "grafana-secure-value-operator-fingerprint"
	// SecretType is the type of that Secret. No connection may read a Secret of this type.
	SecretType corev1.SecretType = "grafana.securevalues.io/fingerprint-key"

	dataKey     = "key"
	retryPeriod = time.Second
)

// errNotAKey says that the Secret is there and does not hold a key: only a person can tell what to do.
var errNotAKey = errors.New("no fingerprint key")

// Keeper holds the key of this installation. It reads it from the Secret when it is started, or makes it there once.
//
// It is a manager.Runnable that needs leader election, so that one process at a time makes a key.
type Keeper struct {
	reader    client.Reader
	writer    client.Writer
	namespace string

	loaded chan struct{} // closed once key is set
	key    Key

	mu      sync.Mutex
	failure string // why there is no key yet, once it was looked for
}

// ErrNotLoaded says that the key is not there yet. It is looked for again and again.
var ErrNotLoaded = errors.New("the fingerprint key is not available yet")

// NewKeeper returns a keeper whose Secret lives in the given namespace. The reader must read it live.
func NewKeeper(reader client.Reader, writer client.Writer, namespace string) *Keeper {
	return &Keeper{reader: reader, writer: writer, namespace: namespace, loaded: make(chan struct{})}
}

// Start reads or makes the key, as often as it takes. It ends with an error if the Secret is there and is not ours.
func (k *Keeper) Start(ctx context.Context) error {
	log := logf.FromContext(ctx).WithName("fingerprint")
	err := wait.PollUntilContextCancel(ctx, retryPeriod, true, func(ctx context.Context) (bool, error) {
		key, err := k.load(ctx)
		if errors.Is(err, errNotAKey) {
			return false, err
		}
		if err != nil { // the API server is away, or refuses what it may grant later
			if k.fails(err) {
				log.Info("No secure value is written before the fingerprint key is there: " + k.explain(err))
			}
			return false, nil
		}
		k.key = key
		close(k.loaded)
		return true, nil
	})
	if errors.Is(err, context.Canceled) { // stopped before the key was there
		return nil
	}
	return err
}

// NeedLeaderElection makes the keeper start on becoming leader.
func (k *Keeper) NeedLeaderElection() bool { return true }

// patience is how long Key waits: enough for the start of a process, and not enough to hold up its workers.
const patience = time.Second

// Key returns the key. Where it is not there within a second, the error is ErrNotLoaded.
func (k *Keeper) Key(ctx context.Context) (Key, error) {
	select {
	case <-k.loaded:
		return k.key, nil
	default:
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-k.loaded:
		return k.key, nil
	case <-timer.C:
		return Key{}, ErrNotLoaded
	case <-ctx.Done():
		return Key{}, ctx.Err()
	}
}

// Check fails while the key is looked for and not there. It is a healthz.Checker.
func (k *Keeper) Check(*http.Request) error {
	select {
	case <-k.loaded:
		return nil
	default:
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failure != "" {
		return errors.New(k.failure)
	}
	return nil
}

// fails remembers why there is no key, and reports whether that is news.
func (k *Keeper) fails(err error) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.failure
	k.failure = k.explain(err)
	return k.failure != old
}

// explain says what to do next.
func (k *Keeper) explain(err error) string {
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Sprintf("namespace %q does not exist: create it, or name the one that the operator runs in by --operator-namespace", k.namespace)
	case apierrors.IsForbidden(err):
		return fmt.Sprintf("grant get and create on Secret %s in namespace %q to the ServiceAccount of the operator, as the Role of the "+
			"installation does", SecretName, k.namespace)
	default:
		return err.Error()
	}
}

// load returns the key that the Secret holds, and makes the Secret if it is not there.
func (k *Keeper) load(ctx context.Context) (Key, error) {
	secret := &corev1.Secret{}
	name := client.ObjectKey{Namespace: k.namespace, Name: SecretName}
	err := k.reader.Get(ctx, name, secret)
	if apierrors.IsNotFound(err) {
		secret, err = k.create(ctx)
	}
	if err != nil {
		return Key{}, fmt.Errorf("fingerprint key: %w", err)
	}
	key, err := ParseKey(secret.Data[dataKey])
	if err != nil || secret.Type != SecretType {
		return Key{}, fmt.Errorf("%w: Secret %s must be of type %s with %d bytes under %q; "+
			"restore it from a backup, or delete it to have a new one made", errNotAKey, name, SecretType, KeySize, dataKey)
	}
	return key, nil
}

func (k *Keeper) create(ctx context.Context) (*corev1.Secret, error) {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: k.namespace, Name: SecretName},
		Type:       SecretType,
		Immutable:  new(true),
		Data:       map[string][]byte{dataKey: NewKey().Bytes()},
	}
	return secret, k.writer.Create(ctx, secret)
}
