package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/apiserver/pkg/util/notfoundhandler"
	restclient "k8s.io/client-go/rest"
)

// maxBodyBytes is what Grafana configures.
const maxBodyBytes = 16 << 20

// newHandler starts the API server of the framework, and returns what Grafana's web server hands requests to. Nothing of it listens.
func newHandler(ctx context.Context, maxReads, maxWrites int) (http.Handler, error) {
	config := genericapiserver.NewConfig(codecs)
	config.ExternalAddress = "localhost:443" // of no use: the framework requires one
	config.LoopbackClientConfig = &restclient.Config{}
	config.EffectiveVersion = compatibility.DefaultBuildEffectiveVersion()
	config.Authentication.Authenticator = authenticator.RequestFunc(authenticate)
	config.Authorization.Authorizer = authorizer.AuthorizerFunc(authorize)
	config.MaxRequestBodyBytes = maxBodyBytes
	config.MaxRequestsInFlight, config.MaxMutatingRequestsInFlight = maxReads, maxWrites
	config.EnableProfiling, config.EnableMetrics = false, false
	namer := openapinamer.NewDefinitionNamer(scheme)
	config.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(definitions, namer)
	config.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, namer)
	config.OpenAPIConfig.Info.Title, config.OpenAPIV3Config.Info.Title = "fake Grafana", "fake Grafana"

	notFound := notfoundhandler.New(codecs, genericapifilters.NoMuxAndDiscoveryIncompleteKey) // of a group that is not served
	server, err := config.Complete(nil).New("grafana-apiserver", genericapiserver.NewEmptyDelegateWithCustomHandler(notFound))
	if err != nil {
		return nil, err
	}
	group := genericapiserver.NewDefaultAPIGroupInfo(groupVersion.Group, scheme, runtime.NewParameterCodec(scheme), codecs)
	group.VersionedResourcesStorageMap[groupVersion.Version] = map[string]rest.Storage{resource: newStorage()}
	if err := server.InstallAPIGroup(&group); err != nil {
		return nil, err
	}
	prepared := server.PrepareRun()
	go func() { _ = prepared.RunWithContext(ctx) }()
	untilComplete(ctx, server.Handler)
	return server.Handler, nil
}

// untilComplete waits while the framework answers 503 about paths that it does not know, as it does until it has all of its own.
func untilComplete(ctx context.Context, handler http.Handler) {
	ctx = context.WithValue(ctx, userKey{}, &user.DefaultInfo{Name: userName})
	for {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodGet, "/apis/unknown", nil))
		if answer.Code != http.StatusServiceUnavailable {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
