# The operator and the certificates that it trusts, nothing else. No build stage: `ci/image` builds the static binary with the pinned
# toolchain and hands it in with the CA bundle as the build context, so that building pulls no image.
#
#     ci/image                                   # needs root, buildah, umoci, musl-tools; no daemon
FROM scratch
COPY --chmod=0444 ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --chmod=0555 keyferry /keyferry
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/keyferry"]
CMD ["run"]
