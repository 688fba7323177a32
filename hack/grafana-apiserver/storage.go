package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

const (
	annotationCreatedBy = "grafana.app/createdBy"
	annotationUpdatedBy = "grafana.app/updatedBy"
	annotationUpdatedAt = "grafana.app/updatedTimestamp"
	annotationFolder    = "grafana.app/folder"
)

// storage has the rules of Grafana, in memory: it watches nothing, has no pages, no stale writes and no dry run.
type storage struct {
	rest.TableConvertor

	mu       sync.Mutex
	values   map[string]*SecureValue // by namespace and name
	versions map[string]int64        // the highest ever, of deleted values too
}

var (
	_ rest.Getter               = &storage{}
	_ rest.Lister               = &storage{}
	_ rest.Creater              = &storage{}
	_ rest.Updater              = &storage{}
	_ rest.GracefulDeleter      = &storage{}
	_ rest.Scoper               = &storage{}
	_ rest.SingularNameProvider = &storage{}
)

func newStorage() *storage {
	return &storage{
		TableConvertor: rest.NewDefaultTableConvertor(groupVersion.WithResource(resource).GroupResource()),
		values:         map[string]*SecureValue{}, versions: map[string]int64{},
	}
}

// New implements rest.Storage.
func (*storage) New() runtime.Object { return &SecureValue{} }

// NewList implements rest.Lister.
func (*storage) NewList() runtime.Object { return &SecureValueList{} }

// Destroy implements rest.Storage.
func (*storage) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (*storage) NamespaceScoped() bool { return true }

// GetSingularName implements rest.SingularNameProvider.
func (*storage) GetSingularName() string { return singular }

// Get implements rest.Getter.
func (s *storage) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.values[keyOf(ctx, name)]; v != nil {
		return v.redacted(), nil
	}
	return nil, notFound(name)
}

// List implements rest.Lister. It returns everything that matches, whatever limit is asked for.
func (s *storage) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	byLabel, byField := options.LabelSelector, options.FieldSelector
	if byLabel == nil {
		byLabel = labels.Everything()
	}
	if byField == nil {
		byField = fields.Everything()
	}
	namespace := request.NamespaceValue(ctx)
	list := &SecureValueList{Items: []SecureValue{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(s.values)) {
		v := s.values[key]
		if v.Namespace == namespace && byLabel.Matches(labels.Set(v.Labels)) && v.matches(byField) {
			list.Items = append(list.Items, *v.redacted())
		}
	}
	return list, nil
}

// matches reports whether the value, with one of its decrypters, matches the selector.
func (v *SecureValue) matches(selector fields.Selector) bool {
	known := fields.Set{"metadata.name": v.Name, "metadata.namespace": v.Namespace}
	for _, decrypter := range append([]string{""}, v.Spec.Decrypters...) {
		known[fieldDecrypter] = decrypter
		if selector.Matches(known) {
			return true
		}
	}
	return false
}

// Create implements rest.Creater.
func (s *storage) Create(
	ctx context.Context, object runtime.Object, check rest.ValidateObjectFunc, _ *metav1.CreateOptions,
) (runtime.Object, error) {
	v, err := secureValue(object)
	if err != nil {
		return nil, err
	}
	if v.Name == "" {
		prefix := v.GenerateName
		if prefix == "" {
			prefix = "sv-"
		}
		v.Name = prefix + rand.String(8)
	}
	if err := check(ctx, v); err != nil {
		return nil, err
	}
	if err := refuse(v, nil); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values[keyOf(ctx, v.Name)] != nil {
		return nil, apierrors.NewAlreadyExists(groupVersion.WithResource(resource).GroupResource(), v.Name)
	}
	return s.store(ctx, v, nil), nil
}

// Update implements rest.Updater. It creates nothing.
func (s *storage) Update(
	ctx context.Context, name string, info rest.UpdatedObjectInfo, _ rest.ValidateObjectFunc, check rest.ValidateObjectUpdateFunc, _ bool,
	_ *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.values[keyOf(ctx, name)]
	if old == nil {
		return nil, false, notFound(name)
	}
	object, err := info.UpdatedObject(ctx, old.redacted())
	if err != nil {
		return nil, false, err
	}
	if err := check(ctx, object, old); err != nil {
		return nil, false, err
	}
	v, err := secureValue(object)
	if err == nil {
		err = refuse(v, old)
	}
	if err != nil {
		return nil, false, err
	}
	return s.store(ctx, v, old), false, nil
}

// Delete implements rest.GracefulDeleter.
func (s *storage) Delete(
	ctx context.Context, name string, check rest.ValidateObjectFunc, _ *metav1.DeleteOptions,
) (runtime.Object, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.values[keyOf(ctx, name)]
	if old == nil {
		return nil, false, notFound(name)
	}
	if err := check(ctx, old.redacted()); err != nil {
		return nil, false, err
	}
	delete(s.values, keyOf(ctx, name))
	return nil, true, nil // the framework then answers with a Status
}

// refuse returns the answer to a write that breaks a rule.
func refuse(v, old *SecureValue) error {
	if errs := validate(v, old); len(errs) > 0 {
		return apierrors.NewInvalid(groupVersion.WithKind(kind).GroupKind(), v.Name, errs)
	}
	// Grafana returns both of these as plain errors, which are 500.
	if _, found := v.Annotations[annotationFolder]; found {
		return errors.New("secure values have no folder")
	}
	if v.Spec.Ref != "" {
		return errors.New("a reference needs a keeper of a third party")
	}
	return nil
}

// store writes a new version, and returns it without its value. s.mu must be locked.
func (s *storage) store(ctx context.Context, sent, old *SecureValue) *SecureValue {
	v := sent.copy()
	key := keyOf(ctx, v.Name)
	now := metav1.NewTime(time.Now().UTC().Truncate(time.Second))
	s.versions[key]++
	v.ObjectMeta = metav1.ObjectMeta{
		Name: v.Name, Namespace: request.NamespaceValue(ctx), Labels: v.Labels, Annotations: v.Annotations, OwnerReferences: v.OwnerReferences,
		UID: uuid.NewUUID(), CreationTimestamp: now, ResourceVersion: strconv.FormatInt(now.Unix(), 10),
	}
	if old != nil {
		v.CreationTimestamp = old.CreationTimestamp
		v.OwnerReferences = old.OwnerReferences // a client cannot change them
		if v.Spec.Value == nil {
			v.Spec.Value = old.Spec.Value
		}
	}
	for _, name := range []string{
		"kubectl.kubernetes.io/last-applied-configuration", annotationCreatedBy, annotationUpdatedBy, annotationUpdatedAt,
	} {
		delete(v.Annotations, name)
	}
	v.Status = Status{Version: s.versions[key], Keeper: "system"}
	s.values[key] = v
	return v.redacted()
}

func secureValue(object runtime.Object) (*SecureValue, error) {
	v, ok := object.(*SecureValue)
	if !ok {
		return nil, errors.New("not a SecureValue")
	}
	return v, nil
}

func keyOf(ctx context.Context, name string) string { return request.NamespaceValue(ctx) + "/" + name }

// notFound names the resource in the singular, as Grafana does.
func notFound(name string) error {
	return apierrors.NewNotFound(groupVersion.WithResource(singular).GroupResource(), name)
}
