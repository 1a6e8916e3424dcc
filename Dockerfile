# The image of Muster: `docker build -t spark-muster:0.1.0 .`
# Base images are named by tag; pin them by digest in your own registry. Python 3.11 is what the test-suite runs on.
FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/ requirements/
# two environments: what builds the wheel does not come into the image
RUN python -m venv /opt/build && /opt/build/bin/pip install --quiet --require-hashes -r requirements/build.txt \
 && python -m venv /opt/muster && /opt/muster/bin/pip install --quiet --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY src/ src/
# the last line: nothing is installed at run time
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir /opt/build/wheels . \
 && /opt/muster/bin/pip install --quiet --no-deps --no-index /opt/build/wheels/*.whl \
 && /opt/muster/bin/python -m pip uninstall --quiet --yes pip setuptools

FROM python:3.11-slim-bookworm AS runtime
COPY --from=build /opt/muster /opt/muster
# where the archived scheduler's images had their programs, for pods that name them in `command`
RUN for name in spark-scheduler spark-scheduler-conversion-webhook; do \
      mkdir -p /opt/palantir/services/$name/service/bin /opt/palantir/services/$name/var/conf \
      && ln -s /opt/muster/bin/$name /opt/palantir/services/$name/service/bin/$name; \
    done
# the root file system may be read-only; only /tmp and the folder of history.path are written to
ENV PATH=/opt/muster/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 65532:65532

# In place of palantirtechnologies/spark-scheduler: `docker build --target spark-scheduler -t spark-scheduler:0.1.0 .`
FROM runtime AS spark-scheduler
WORKDIR /opt/palantir/services/spark-scheduler
EXPOSE 8483 8484
ENTRYPOINT ["spark-scheduler"]
CMD ["server"]

# In place of palantirtechnologies/spark-scheduler-conversion-webhook
FROM runtime AS spark-scheduler-conversion-webhook
WORKDIR /opt/palantir/services/spark-scheduler-conversion-webhook
EXPOSE 8484 8485
ENTRYPOINT ["spark-scheduler-conversion-webhook"]
CMD ["server"]

FROM runtime
WORKDIR /tmp
EXPOSE 8443 8484
ENTRYPOINT ["muster"]
CMD ["serve", "--config", "/etc/muster/muster.yaml"]
