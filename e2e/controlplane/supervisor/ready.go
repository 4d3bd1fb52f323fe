package supervisor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"
)

const probeInterval = 50 * time.Millisecond

// probe is a GET that answers 200 once a server is ready.
type probe struct {
	url            string
	token          string
	caFile         string // may not exist yet
	anyCertificate bool
}

// await returns once the probe succeeded; it fails when a server ended, when
// the time is over, and when the control plane is to stop.
func (p *plane) await(ctx context.Context, probe probe) error {
	deadline := time.NewTimer(readyWithin)
	defer deadline.Stop()
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	for {
		failure := probe.try(ctx)
		if dead := p.died(); dead != nil {
			return dead.failure()
		}
		if failure == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("stopped before it was ready")
		case <-deadline.C:
			return fmt.Errorf("not ready within %s: %w", readyWithin, failure)
		case <-ticker.C:
		}
	}
}

func (p probe) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return err
	}
	if p.token != "" {
		request.Header.Set("Authorization", "Bearer "+p.token)
	}
	client, err := p.client()
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", p.url, response.Status)
	}
	return nil
}

// client trusts one server alone: whoever else listens on its port is refused.
func (p probe) client() (*http.Client, error) {
	config := &tls.Config{InsecureSkipVerify: p.anyCertificate}
	if p.caFile != "" {
		pem, err := os.ReadFile(p.caFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate yet", p.caFile)
		}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}, nil
}
