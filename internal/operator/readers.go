package operator

import (
	"context"
	"crypto/sha256"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const (
	// allowedTTL and refusedTTL are how long the API server's word on a token is believed.
	allowedTTL = time.Minute
	refusedTTL = 10 * time.Second
	// maxVerdicts bounds the tokens whose verdict is kept.
	maxVerdicts = 256
	// reviewTimeout bounds what the API server is asked for one request.
	reviewTimeout = 10 * time.Second
)

// readers lets those read the metrics who may, by the word of the API server: a TokenReview tells whose the bearer token is, and a
// SubjectAccessReview whether they have the verb on the path. The filter of controller-runtime does the same with k8s.io/apiserver,
// which brings the libraries of an API server with it: 20 MB of binary and 18 MB of memory.
type readers struct {
	tokens   authenticationclient.TokenReviewInterface
	access   authorizationclient.SubjectAccessReviewInterface
	verdicts *cache.LRUExpireCache // of HTTP status codes by asked
}

// asked is what a verdict is about. No token is kept.
type asked struct {
	token      [sha256.Size]byte
	verb, path string
}

// onlyReaders is a metricsserver.Options.FilterProvider.
func onlyReaders(config *rest.Config, httpClient *http.Client) (metricsserver.Filter, error) {
	tokens, err := authenticationclient.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, err
	}
	access, err := authorizationclient.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, err
	}
	r := &readers{tokens: tokens.TokenReviews(), access: access.SubjectAccessReviews(), verdicts: cache.NewLRUExpireCache(maxVerdicts)}
	return r.filter, nil
}

func (r *readers) filter(log logr.Logger, next http.Handler) (http.Handler, error) {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		code, err := r.verdict(req)
		if err != nil {
			log.Error(err, "Reader of metrics not reviewed")
		}
		if code != http.StatusOK {
			http.Error(w, http.StatusText(code), code)
			return
		}
		next.ServeHTTP(w, req)
	}), nil
}

// verdict returns the status code for a request; an error says that the API server gave no answer.
func (r *readers) verdict(req *http.Request) (int, error) {
	scheme, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return http.StatusUnauthorized, nil
	}
	about := asked{token: sha256.Sum256([]byte(token)), verb: strings.ToLower(req.Method), path: req.URL.Path}
	if known, ok := r.verdicts.Get(about); ok {
		return known.(int), nil //nolint:forcetypeassert // nothing else is put there
	}
	ctx, cancel := context.WithTimeout(req.Context(), reviewTimeout)
	defer cancel()
	code, err := r.review(ctx, token, about)
	if err != nil {
		return http.StatusInternalServerError, err
	}
	ttl := refusedTTL
	if code == http.StatusOK {
		ttl = allowedTTL
	}
	r.verdicts.Add(about, code, ttl)
	return code, nil
}

func (r *readers) review(ctx context.Context, token string, about asked) (int, error) {
	whose, err := r.tokens.Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return 0, err
	}
	if !whose.Status.Authenticated {
		return http.StatusUnauthorized, nil
	}
	user := whose.Status.User
	extra := make(map[string]authorizationv1.ExtraValue, len(user.Extra))
	for key, value := range user.Extra {
		extra[key] = authorizationv1.ExtraValue(value)
	}
	may, err := r.access.Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: about.path, Verb: about.verb},
	}}, metav1.CreateOptions{})
	switch {
	case err != nil:
		return 0, err
	case !may.Status.Allowed:
		return http.StatusForbidden, nil
	default:
		return http.StatusOK, nil
	}
}
